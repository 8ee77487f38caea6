package agent

import (
	"encoding/binary"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/program"
	"nexus/agent/internal/sessions"
)

const (
	maxPrograms = 64
	// outputGrace is how long a program's output may take to end once the program has: what it
	// left running in the background may hold its pipes for ever.
	outputGrace = time.Second
	endOfInput  = "\x04" // what a terminal takes for it
)

// exec runs a program for as long as the host keeps the stream.
func (a *Agent) exec(c *call) error {
	defer a.programs.Add(-1)
	if a.programs.Add(1) > maxPrograms {
		return c.refuse("busy", "as many programs run as the agent can mind: "+strconv.Itoa(maxPrograms))
	}
	if a.leaving.Load() {
		return c.refuse("busy", errLeaving)
	}
	wanted, err := a.wish(c.request)
	if err != nil {
		return c.refuse("invalid", err.Error())
	}
	started := c.begin(wanted.Command)
	if started == nil {
		return nil
	}
	defer started.Close()
	e := &execution{Program: started, chunks: chunkWriter{stream: c.stream}, input: newInbox()}
	if err := c.reply(minijson.Object{"pid": started.PID, "tty": started.Terminal}); err != nil {
		started.Signal(syscall.SIGKILL)
	}
	e.run(time.Duration(wanted.timeout * float64(time.Second)))
	return nil
}

// execution is a program that runs for the host.
type execution struct {
	*program.Program
	chunks chunkWriter
	input  *inbox
}

// run serves the program to its end and tells how it ended.
func (e *execution) run(timeout time.Duration) {
	hungUp := make(chan struct{})
	go func() {
		e.obey()
		e.Signal(syscall.SIGKILL) // nothing runs on for a host that is gone
		close(hungUp)
	}()
	var outputs sync.WaitGroup
	outputs.Go(func() { e.pump(chunkStdout, e.Stdout) })
	if e.Stderr != nil {
		outputs.Go(func() { e.pump(chunkStderr, e.Stderr) })
	}
	if e.Stdin != nil {
		go e.feed()
	}
	timedOut := e.killAfter(timeout)
	e.Await()
	late := timedOut()
	e.endInput()
	e.LimitReading(outputGrace)
	outputs.Wait()
	e.tellExit(e.Reap(), late)
	impatience := time.AfterFunc(closeTimeout, e.chunks.stream.Reset)
	<-hungUp
	impatience.Stop()
}

// killAfter kills the program when its time is over, none if timeout is 0. The function that it
// returns stops the clock and tells whether that has happened.
func (e *execution) killAfter(timeout time.Duration) func() bool {
	var fired atomic.Bool
	if timeout == 0 {
		return fired.Load
	}
	clock := time.AfterFunc(timeout, func() {
		fired.Store(true)
		e.Signal(syscall.SIGKILL)
	})
	return func() bool {
		clock.Stop()
		return fired.Load()
	}
}

// obey does what the host says until it closes or resets the stream, or breaks the protocol.
func (e *execution) obey() {
	var kind byte
	var data []byte
	var err error
	for {
		if kind, data, err = readChunk(e.chunks.stream, data); err != nil {
			break
		}
		if kind == chunkStdin && e.Stdin != nil && e.input.put(data) {
			continue
		}
		if !command(e.Program, kind, data) {
			break
		}
	}
	if err == nil {
		e.chunks.stream.Reset()
	}
}

// command does what a chunk of the host says about a program; false where it says nothing.
func command(p *program.Program, kind byte, data []byte) bool {
	switch {
	case kind == chunkSignal && len(data) == 1 && validSignal(float64(data[0])):
		p.Signal(syscall.Signal(data[0]))
	case kind == chunkResize && len(data) == 4 && p.Terminal:
		p.Resize(program.Size{Rows: binary.BigEndian.Uint16(data), Cols: binary.BigEndian.Uint16(data[2:])})
	default:
		return false
	}
	return true
}

// pump sends one of the program's outputs, waiting for the host where it must.
func (e *execution) pump(kind byte, output *os.File) {
	room := rooms.Get().(room)
	defer rooms.Put(room)
	program.Drain(output, room[chunkHeader:], func(n int) bool {
		return e.chunks.send(kind, room[:chunkHeader+n]) == nil
	})
}

// feed gives the program its input, and the host leave to send as much again. What a program
// does not want any more is dropped.
func (e *execution) feed() {
	defer e.closeInput()
	for data := e.input.take(); len(data) > 0; data = e.input.take() {
		e.Stdin.Write(data)
		e.input.allow(len(data))
		room := binary.BigEndian.AppendUint32(make([]byte, chunkHeader), uint32(len(data)))
		if e.chunks.send(chunkWindow, room) != nil {
			return
		}
	}
}

// closeInput lets the program read end of file.
func (e *execution) closeInput() {
	if e.Terminal {
		e.Stdin.WriteString(endOfInput)
	} else {
		e.Stdin.Close()
	}
}

// endInput lets feed come to its end, also where it waits for the program to read.
func (e *execution) endInput() {
	e.input.end()
	if e.Stdin != nil {
		e.Stdin.SetWriteDeadline(time.Now())
	}
}

func (e *execution) tellExit(status syscall.WaitStatus, timedOut bool) {
	how := sessions.Exit{Code: status.ExitStatus(), TimedOut: timedOut}
	if status.Signaled() {
		how.Signal = int(status.Signal())
	}
	e.chunks.sendExit(how)
}
