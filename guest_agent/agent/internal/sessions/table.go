package sessions

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"nexus/agent/internal/program"
	"nexus/agent/internal/system"
)

const (
	// MaxSessions bounds those that run and those that have ended.
	MaxSessions = 64
	DefaultKeep = 1 << 20
	MinKeep     = 4 << 10
	MaxKeep     = 8 << 20
	// maxKept bounds what all sessions keep together, and so does a quarter of the memory.
	maxKept = 64 << 20
	// keepEnded is how long one that has ended waits for a host to look at it.
	keepEnded = time.Hour
)

var (
	// ErrFull is for one session too many.
	ErrFull = errors.New("as many sessions run, or keep as much output, as the agent can mind")
	// ErrUnknown is for a session that never was, or is forgotten.
	ErrUnknown = errors.New("there is no such session")
	// ErrRuns is for a session that has not ended.
	ErrRuns = errors.New("the session still runs")
)

// Table is all sessions.
type Table struct {
	mutex sync.Mutex
	all   map[string]*Session
}

// Start makes a session of the program that start starts. Where there is one of this name it is
// that one: a host that asks again has not heard the answer.
func (t *Table) Start(about About, start func() (*program.Program, error)) (s *Session, old bool, err error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if s := t.all[about.ID]; s != nil {
		return s, true, nil
	}
	if !t.makeRoom(about.Keep) {
		return nil, false, ErrFull
	}
	output, err := newRing(about.Keep)
	if err != nil {
		return nil, false, err
	}
	started, err := start()
	if err != nil {
		output.file.Close()
		return nil, false, err
	}
	about.Started = system.Uptime()
	if about.Deadline > 0 {
		about.Deadline += about.Started
	}
	s = newSession(about, started, output)
	t.add(s)
	s.run()
	return s, false, nil
}

func (t *Table) add(s *Session) {
	if t.all == nil {
		t.all = map[string]*Session{}
	}
	t.all[s.ID] = s
}

// Find is the session of this name.
func (t *Table) Find(id string) (*Session, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if s := t.all[id]; s != nil {
		return s, nil
	}
	return nil, ErrUnknown
}

// List is all sessions, the oldest first.
func (t *Table) List() []*Session {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.sweep()
	return t.sorted()
}

// Forget gives up what is kept of a session that has ended.
func (t *Table) Forget(id string) error {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	s := t.all[id]
	if s == nil {
		return ErrUnknown
	}
	if !s.hasEnded() {
		return ErrRuns
	}
	t.remove(s)
	return nil
}

func (t *Table) remove(s *Session) {
	delete(t.all, s.ID)
	s.forget()
}

func (t *Table) sorted() []*Session {
	list := make([]*Session, 0, len(t.all))
	for _, s := range t.all {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *Session) int {
		switch {
		case a.Started < b.Started:
			return -1
		case a.Started > b.Started:
			return 1
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// sweep forgets those that ended long ago.
func (t *Table) sweep() {
	for _, s := range t.all {
		if s.unwatchedFor() > keepEnded.Seconds() {
			t.remove(s)
		}
	}
}

// makeRoom forgets those that have ended, the oldest first, until one more can be kept.
func (t *Table) makeRoom(keep int) bool {
	t.sweep()
	memory := system.Memory()
	most := min(maxKept, int(memory.Total/4))
	kept := keep
	for _, s := range t.all {
		kept += s.Keep
	}
	for _, s := range t.sorted() {
		if len(t.all) < MaxSessions && kept <= most {
			break
		}
		if s.unwatchedFor() >= 0 {
			kept -= s.Keep
			t.remove(s)
		}
	}
	return len(t.all) < MaxSessions && kept <= most
}

func (s *Session) hasEnded() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.exit != nil
}

// unwatchedFor is how many seconds ago the session ended; less than 0 while it runs or is viewed.
func (s *Session) unwatchedFor() float64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.exit == nil || s.views > 0 {
		return -1
	}
	return max(0, system.Uptime()-s.ended)
}

func (s *Session) forget() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.forgotten = true
	s.output.file.Close()
	s.changed.Broadcast()
}

// State is how a session is.
type State struct {
	First, Size uint64 // offsets: of the oldest byte that is kept, and of the next one
	Views       int
	Exit        *Exit   // nil while it runs
	Ended       float64 // seconds since the kernel started, with Exit
}

// State is how the session is now.
func (s *Session) State() State {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return State{s.output.first, s.output.size, s.views, s.exit, s.ended}
}
