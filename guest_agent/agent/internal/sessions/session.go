package sessions

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"nexus/agent/internal/program"
	"nexus/agent/internal/system"
)

const (
	// outputGrace is how long a program's output may take to end once the program has.
	outputGrace = time.Second
	readSize    = 32 << 10
	endOfInput  = "\x04" // what a terminal takes for it
)

// About is what stays the same about a session.
type About struct {
	ID, User, Dir string
	Argv          []string
	Input         bool // it takes input
	Keep          int
	// Seconds since the kernel started; Deadline is 0 for a program that may run for ever.
	Started, Deadline float64
}

// Exit is how a program ended: with a code, or by a signal that is not 0.
type Exit struct {
	Code, Signal int
	TimedOut     bool
}

// Session is a program and the end of its output.
type Session struct {
	About
	*program.Program

	mutex     sync.Mutex
	changed   sync.Cond
	output    *ring
	pumps     int  // that still take output
	over      bool // the program has ended, its output perhaps not
	input     queue
	feeding   bool // the first piece of input is on its way
	exit      *Exit
	ended     float64 // seconds since the kernel started, with exit
	late      bool    // its time was over
	views     int
	leaving   bool // the agent is about to be replaced: nothing moves
	forgotten bool
}

func newSession(about About, p *program.Program, output *ring) *Session {
	s := &Session{About: about, Program: p, output: output}
	s.changed.L = &s.mutex
	return s
}

// run minds the program to its end.
func (s *Session) run() {
	s.mutex.Lock()
	s.pumpAll()
	s.mutex.Unlock()
	if s.Program.Stdin != nil {
		go s.feed()
	}
	var clock *time.Timer
	if s.Deadline > 0 {
		left := time.Duration((s.Deadline - system.Uptime()) * float64(time.Second))
		clock = time.AfterFunc(left, s.timeOut)
	}
	go func() {
		s.Await()
		if clock != nil {
			clock.Stop()
		}
		s.stopInput()
		s.finish()
	}()
}

func (s *Session) timeOut() {
	s.mutex.Lock()
	s.late = true
	s.mutex.Unlock()
	s.Signal(syscall.SIGKILL)
}

// awaitStay is called with the lock held.
func (s *Session) awaitStay() {
	for s.leaving {
		s.changed.Wait()
	}
}

// finish takes the rest of the output, then the program's status: the next agent does if this one
// is being replaced.
func (s *Session) finish() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.awaitStay()
	s.over = true
	s.LimitReading(outputGrace)
	for s.leaving || s.pumps > 0 {
		s.changed.Wait()
	}
	status := s.Reap()
	s.exit = &Exit{Code: status.ExitStatus(), TimedOut: s.late}
	if status.Signaled() {
		s.exit.Signal = int(status.Signal())
	}
	s.ended = system.Uptime()
	s.Close()
	s.changed.Broadcast()
}

// pumpAll is called with the lock held.
func (s *Session) pumpAll() {
	s.pumps++
	go s.pump(Output, s.Stdout)
	if s.Stderr != nil {
		s.pumps++
		go s.pump(ErrorOutput, s.Stderr)
	}
}

// pump takes the program's output as it comes, whoever looks at it.
func (s *Session) pump(kind Event, output *os.File) {
	room := make([]byte, readSize)
	program.Drain(output, room, func(n int) bool {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.output.append(kind, room[:n]) // what cannot be kept must not hold the program up
		s.changed.Broadcast()
		return true
	})
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.pumps--
	s.changed.Broadcast()
}

// feed gives the program what its hosts have sent.
func (s *Session) feed() {
	for {
		data, more := s.nextInput()
		if !more {
			return
		}
		n, err := 0, error(nil)
		if len(data) == 0 {
			s.closeInput()
		} else if n, err = s.Program.Stdin.Write(data); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			n = len(data) // nobody reads it any more
		}
		s.mutex.Lock()
		s.feeding = false
		s.input.took(n)
		s.changed.Broadcast()
		s.mutex.Unlock()
	}
}

// nextInput waits for input; false when there will be none.
func (s *Session) nextInput() ([]byte, bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for (s.leaving || len(s.input.pieces) == 0) && !s.input.over {
		s.changed.Wait()
	}
	if s.input.over {
		return nil, false
	}
	s.feeding = true
	return s.input.pieces[0].data, true
}

func (s *Session) closeInput() {
	if s.Terminal {
		s.Program.Stdin.WriteString(endOfInput)
	} else {
		s.Program.Stdin.Close()
	}
}

// stopInput lets feed come to its end, also where it waits for the program to read.
func (s *Session) stopInput() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.awaitStay()
	s.input.stop()
	if s.Program.Stdin != nil {
		s.Program.Stdin.SetWriteDeadline(time.Now())
	}
	s.changed.Broadcast()
}
