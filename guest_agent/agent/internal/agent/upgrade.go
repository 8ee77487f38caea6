package agent

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"nexus/agent/internal/files"
	"nexus/agent/internal/minijson"
	"nexus/agent/internal/program"
	"nexus/agent/internal/sessions"
	"nexus/agent/internal/sha256"
	"nexus/agent/internal/system"
)

const (
	// Path is where the agent lies in a guest.
	Path = "/usr/bin/nexus-agent"
	// HandoverFormat is what agents must agree on for one to take over from the other. A new
	// binary tells its own when it is run with the word "handover".
	HandoverFormat = "1"

	maxBinary   = 64 << 20
	maxHandover = 64 << 20
	checkTime   = 30 // seconds
)

// upgrade puts the binary that follows in this one's place and runs it as this process: sessions
// go on, the connection is made anew.
func (a *Agent) upgrade(c *call) error {
	size, sizeErr := c.request.Number("size")
	sum, sumErr := c.request.Text("sha256")
	if sizeErr != nil || sumErr != nil || size < 1 || size > maxBinary || len(sum) != 64 {
		return c.refuse("invalid", "an agent has a size of at most 64 MiB and a SHA-256 in hex")
	}
	if !a.leaving.CompareAndSwap(false, true) {
		return c.refuse("busy", errLeaving)
	}
	path, err := a.install(c.stream, int64(size), sum)
	if err != nil {
		a.leaving.Store(false) // before the host can ask again
		return c.refuseFile(err)
	}
	defer a.leaving.Store(false)
	c.reply(nil) // a host that has read it may hang up before this returns: that is no failure
	if err := a.become(path); err != nil {
		system.Complain("cannot become the new agent", err.Error())
	}
	return nil
}

// install puts the binary in its place, unless something would be lost with this agent.
func (a *Agent) install(from io.Reader, size int64, sum string) (path string, err error) {
	if n := a.programs.Load() + a.transfers.Load() + a.connections.Load(); n > 0 {
		return "", refusal{"busy", "programs, transfers and connections that would be lost are under way: " + strconv.Itoa(int(n))}
	}
	path = a.System.Path(Path)
	fresh, err := files.Begin(files.Wish{Path: path, Mode: new(uint32(0o755)), Parents: true})
	if err != nil {
		return "", err
	}
	if err := receive(fresh, from, size, sum); err != nil {
		fresh.Abort()
		return "", refusal{"invalid", err.Error()}
	}
	return path, fresh.Commit()
}

// receive takes the binary and tries whether it runs.
func receive(to *files.Write, from io.Reader, size int64, sum string) error {
	hash := sha256.New()
	n, err := files.Copy(io.MultiWriter(to, hash), io.LimitReader(from, size))
	if err != nil {
		return err
	}
	if got := hash.Sum(); n != size || system.Hex(got[:]) != strings.ToLower(sum) {
		return errors.New("it is not the binary that was announced")
	}
	if err := errors.Join(to.Sync(), to.Close()); err != nil { // a file that is written cannot be run
		return err
	}
	return check(to.Name())
}

// check has the binary say what it takes over.
func check(path string) error {
	p, err := program.Start(program.Command{Argv: []string{path, "handover"}, Dir: "/", Merge: true})
	if err != nil {
		return err
	}
	defer p.Close()
	clock := time.AfterFunc(checkTime*time.Second, func() { p.Signal(9) })
	said := make([]byte, len(HandoverFormat)+1)
	n, _ := io.ReadFull(p.Stdout, said)
	p.Signal(9) // it has nothing else to say
	p.Await()
	clock.Stop()
	p.Reap()
	if string(said[:n]) != HandoverFormat+"\n" {
		return errors.New("it cannot take over from this agent")
	}
	return nil
}

// become runs the agent at path as this process. It returns only if that failed: then this one
// goes on.
func (a *Agent) become(path string) error {
	time.Sleep(answerTime)
	a.sessions.Pause()
	defer a.sessions.Resume()
	packed, keep := a.sessions.Pack()
	seconds, _ := a.settled.look()
	state, err := sessions.MemoryFile("nexus-handover")
	if err != nil {
		return err
	}
	defer state.Close()
	_, err = state.Write(minijson.Encode(minijson.Object{
		"sessions": packed, "settled": seconds, "started": a.Started, "lock": a.Lock.fd, "waiting": a.Lock.waiting(),
	}))
	if err != nil {
		return err
	}
	keep = append(keep, a.Lock.files()...)
	fd := program.Descriptor(state)
	return program.Replace(path, handoverArguments(os.Args, fd), append(keep, fd))
}

// answerTime lets the answer get to the host before the connection ends.
const answerTime = 50 * time.Millisecond

func handoverArguments(arguments []string, fd int) []string {
	next := []string{filepath.Base(Path)}
	for i := 1; i < len(arguments); i++ {
		if arguments[i] == "--handover" {
			i++
			continue
		}
		next = append(next, arguments[i])
	}
	return append(next, "--handover", strconv.Itoa(fd))
}

// TakeOver goes on where the agent before this one has left off, whose state is in the file fd.
func (a *Agent) TakeOver(fd int) error {
	file := program.Inherited(fd, "nexus-handover")
	defer file.Close()
	size, err := file.Seek(0, io.SeekCurrent)
	if err != nil || size > maxHandover {
		return errors.New("there is nothing to take over")
	}
	text := make([]byte, size)
	if _, err := file.ReadAt(text, 0); err != nil {
		return err
	}
	state, err := minijson.Decode(text)
	if err != nil {
		return err
	}
	a.Started, _ = state.Number("started")
	lock, _ := state.Number("lock")
	a.Lock = &Lock{fd: int(lock)}
	waiting, _ := state["waiting"].(minijson.Array)
	for _, value := range waiting {
		peer, _ := value.(float64)
		a.Lock.peers = append(a.Lock.peers, int(peer))
	}
	a.Lock.keepPrivate()
	if seconds, _ := state.Number("settled"); seconds > 0 {
		a.settled.at(seconds)
	}
	packed, _ := state["sessions"].(minijson.Array)
	return a.sessions.Unpack(packed)
}
