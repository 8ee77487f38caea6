// Package agent answers the host: it dials it, says hello, and serves the operations.
package agent

import (
	"bufio"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"nexus/agent/internal/link"
	"nexus/agent/internal/sessions"
	"nexus/agent/internal/system"
	"nexus/agent/internal/yamux"
)

const (
	headerTimeout = 10 * time.Second
	closeTimeout  = 10 * time.Second
	leavingPause  = 10 * time.Millisecond
	readBuffer    = 64 << 10
)

// Agent is one guest's agent.
type Agent struct {
	System  system.System
	Dialer  link.Dialer
	Version string
	// Init names what the distribution's init is; "none" where the agent is alone.
	Init string
	// RootMounted and Started are in seconds since the kernel started; 0 where not known.
	RootMounted, Started float64
	Lock                 *Lock

	who         atomic.Pointer[string]
	configuring sync.Mutex
	programs    atomic.Int32 // that run for the host
	transfers   atomic.Int32 // of files that are on their way
	connections atomic.Int32 // to ports of the guest
	leaving     atomic.Bool  // another agent is about to take over
	sessions    sessions.Table
	frost       atomic.Pointer[frost] // nil while nothing is frozen
	settled     settled
	facts       facts
	boot        atomic.Pointer[string] // what bootID gives
}

// SetIdentity says whether the guest has an identity of its own: a word of package identity.
func (a *Agent) SetIdentity(word string) { a.who.Store(&word) }

func (a *Agent) identity() string {
	if word := a.who.Load(); word != nil {
		return *word
	}
	return ""
}

// Run serves host after host and does not return.
func (a *Agent) Run() {
	go a.Lock.Watch(a.Settled)
	told := map[string]bool{io.EOF.Error(): true} // a host that leaves is nothing to tell
	for {
		text := a.serve(a.Dialer.Dial()).Error()
		if !told[text] {
			system.Complain("the connection to the host ended", text)
			told[text] = true
		}
	}
}

// serve keeps up one connection to the host until it ends, and tells why it did. A guest that goes
// on from memory has another host at the same connection.
func (a *Agent) serve(conn *link.Conn) error {
	defer conn.Close()
	reader := bufio.NewReaderSize(conn, readBuffer)
	for {
		if err := a.converse(reader, conn); err != yamux.ErrReplaced {
			return err
		}
	}
}

// converse serves one host.
func (a *Agent) converse(reader *bufio.Reader, conn *link.Conn) error {
	for a.leaving.Load() { // a host that greeted this agent would lose the connection with it
		time.Sleep(leavingPause)
	}
	if err := link.Handshake(reader, conn); err != nil {
		return err
	}
	session := yamux.Serve(reader, conn, link.Magic, a.answer)
	if err := a.greet(session); err != nil {
		session.Close()
		return err
	}
	<-session.Done()
	a.endFrost() // nothing stays frozen for a host that is gone
	return session.Err()
}

// answer serves one stream that the host has opened.
func (a *Agent) answer(stream *yamux.Stream) {
	defer stream.Reset()
	impatience := time.AfterFunc(headerTimeout, stream.Reset)
	request, err := readHeader(stream)
	impatience.Stop()
	c := &call{request: request, stream: stream}
	if err != nil {
		c.refuse("bad-header", err.Error())
	} else {
		a.dispatch(c)
	}
	stream.CloseWrite()
	drain(stream)
}

func (a *Agent) dispatch(c *call) {
	defer func() { // an operation's mistake must not end the agent
		if problem := recover(); problem != nil && !c.replied {
			c.refuse("broken", "the agent made a mistake"+because(problem))
		}
	}()
	name, err := c.request.Text("op")
	operation, known := operations[name]
	if err != nil || !known {
		c.refuse("unknown-op", "this agent does not know the operation "+name)
		return
	}
	if err := operation(a, c); err != nil && !c.replied {
		c.refuse("failed", err.Error())
	}
}

func because(problem any) string {
	if err, ok := problem.(error); ok {
		return ": " + err.Error()
	}
	return ""
}

// drain waits for the host's half-close, so that resetting cannot overtake the answer.
func drain(stream *yamux.Stream) {
	impatience := time.AfterFunc(closeTimeout, stream.Reset)
	defer impatience.Stop()
	io.Copy(io.Discard, stream)
}
