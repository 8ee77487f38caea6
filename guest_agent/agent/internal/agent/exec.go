package agent

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/program"
)

const (
	maxPrograms = 64
	maxTimeout  = 1 << 31 // seconds
	// outputGrace is how long a program's output may take to end once the program has: what it
	// left running in the background may hold its pipes for ever.
	outputGrace = time.Second
	// lateOutput is what may still be taken out of the pipes after that, if it comes at once.
	lateOutput   = 1 << 20
	latePatience = 10 * time.Millisecond
	defaultPath  = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// exec runs a program for as long as the host keeps the stream.
func (a *Agent) exec(c *call) error {
	defer a.programs.Add(-1)
	if a.programs.Add(1) > maxPrograms {
		return c.refuse("busy", "as many programs run as the agent can mind: "+strconv.Itoa(maxPrograms))
	}
	command, err := a.command(c.request)
	if err != nil {
		return c.refuse("invalid", err.Error())
	}
	timeout, err := c.request.Number("timeout")
	if err != nil || timeout < 0 || timeout > maxTimeout {
		return c.refuse("invalid", "the field timeout must be a number of seconds")
	}
	started, err := program.Start(command)
	if err != nil {
		return c.refuse("cannot-run", err.Error())
	}
	defer started.Close()
	e := &execution{Program: started, chunks: chunkWriter{stream: c.stream}, input: newInbox()}
	if err := c.reply(minijson.Object{"pid": started.PID}); err != nil {
		started.Signal(syscall.SIGKILL)
	}
	e.run(time.Duration(timeout * float64(time.Second)))
	return nil
}

// command is what the header asks for.
func (a *Agent) command(request minijson.Object) (c program.Command, err error) {
	var wanted string
	var env minijson.Object
	var errs [6]error
	c.Argv, errs[0] = request.Texts("argv")
	env, errs[1] = request.Object("env")
	c.Dir, errs[2] = request.Text("cwd")
	wanted, errs[3] = request.Text("user")
	c.Stdin, errs[4] = request.Bool("stdin")
	c.Merge, errs[5] = request.Bool("merge")
	if err := errors.Join(errs[:]...); err != nil {
		return c, err
	}
	if c.Dir == "" {
		c.Dir = "/"
	}
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return c, errors.New("the field argv must name a program")
	}
	if !strings.HasPrefix(c.Dir, "/") {
		return c, errors.New("the field cwd must be an absolute path")
	}
	user, err := a.user(wanted)
	if err != nil {
		return c, err
	}
	if wanted != "" {
		c.User = user
	}
	c.Env, err = environment(user, env)
	return c, err
}

// user is whom a program runs as, the agent's own user where none is wanted.
func (a *Agent) user(wanted string) (*program.User, error) {
	if wanted == "" {
		wanted = strconv.Itoa(os.Getuid())
	}
	return program.LookUp(wanted, a.System.Path("/etc/passwd"), a.System.Path("/etc/group"))
}

// environment is what every program finds, and what the host gives in addition or instead.
func environment(user *program.User, given minijson.Object) ([]string, error) {
	all := map[string]string{"PATH": defaultPath, "LANG": "C.UTF-8", "HOME": user.Home}
	if user.Name != "" {
		all["USER"], all["LOGNAME"] = user.Name, user.Name
	}
	for name := range given {
		value, err := given.Text(name)
		if err != nil {
			return nil, err
		}
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return nil, errors.New("not a variable: " + name)
		}
		all[name] = value
	}
	list := make([]string, 0, len(all))
	for name, value := range all {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list, nil
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
	e.chunks.stream.CloseWrite()
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
		if kind != chunkSignal || len(data) != 1 || data[0] == 0 || data[0] > 64 {
			break
		}
		e.Signal(syscall.Signal(data[0]))
	}
	if err == nil {
		e.chunks.stream.Reset()
	}
}

// pump sends one of the program's outputs, waiting for the host where it must.
func (e *execution) pump(kind byte, output *os.File) {
	room := make([]byte, chunkHeader+outputChunk)
	taken, late := 0, false
	for !late || taken < lateOutput {
		if late {
			output.SetReadDeadline(time.Now().Add(latePatience))
		}
		n, err := output.Read(room[chunkHeader:])
		if n > 0 && e.chunks.send(kind, room[:chunkHeader+n]) != nil {
			return
		}
		if late {
			taken += n
		}
		if err != nil && (late || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return
		}
		late = late || err != nil
	}
}

// feed gives the program its input, and the host leave to send as much again. What a program
// does not want any more is dropped.
func (e *execution) feed() {
	defer e.Stdin.Close() // the program reads end of file
	for data := e.input.take(); len(data) > 0; data = e.input.take() {
		e.Stdin.Write(data)
		e.input.allow(len(data))
		room := binary.BigEndian.AppendUint32(make([]byte, chunkHeader), uint32(len(data)))
		if e.chunks.send(chunkWindow, room) != nil {
			return
		}
	}
}

// endInput lets feed come to its end, also where it waits for the program to read.
func (e *execution) endInput() {
	e.input.end()
	if e.Stdin != nil {
		e.Stdin.Close()
	}
}

func (e *execution) tellExit(status syscall.WaitStatus, timedOut bool) {
	how := minijson.Object{"code": status.ExitStatus()}
	if status.Signaled() {
		how = minijson.Object{"signal": int(status.Signal())}
	}
	if timedOut {
		how["timed_out"] = true
	}
	e.chunks.send(chunkExit, append(make([]byte, chunkHeader), minijson.Encode(how)...))
}
