package agent

import (
	"errors"
	"slices"
	"sync"
	"time"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/system"
)

const (
	defaultFreeze = 30 * time.Second
	maxFreeze     = 60 * time.Second
)

// freeze writes the file systems out and lets every write wait: until the host thaws them, its
// connection ends, or "timeout" seconds are over. The agent itself must not write meanwhile.
func (a *Agent) freeze(c *call) error {
	seconds, err := c.request.Number("timeout")
	if err != nil || seconds < 0 || seconds > maxFreeze.Seconds() {
		return c.refuse("invalid", "the field timeout must be at most 60 seconds")
	}
	timeout := defaultFreeze
	if seconds > 0 {
		timeout = time.Duration(seconds * float64(time.Second))
	}
	f := newFrost()
	if !a.frost.CompareAndSwap(nil, f) {
		return c.refuse("busy", "the file systems are frozen already")
	}
	time.AfterFunc(timeout, func() { a.end(f) })
	err = f.settle(f.spread(a.System))
	if err == nil {
		err = c.reply(minijson.Object{"frozen": f.paths()})
	}
	if err != nil {
		a.end(f)
	}
	return err
}

// thaw lets the writes go on. The answer names no file system where nothing is frozen any more.
func (a *Agent) thaw(c *call) error { return c.reply(minijson.Object{"thawed": a.endFrost()}) }

// endFrost thaws what is frozen and tells what that was.
func (a *Agent) endFrost() []string {
	if f := a.frost.Load(); f != nil {
		return a.end(f)
	}
	return nil
}

// end may be called any number of times for a frost. While it still spreads no other may begin:
// each would take what the other freezes for its own.
func (a *Agent) end(f *frost) []string {
	thawed, settled := f.end()
	if settled {
		a.frost.CompareAndSwap(f, nil)
	}
	return thawed
}

// frost is what is frozen from one freeze to its thaw.
type frost struct {
	mutex     sync.Mutex
	spreading bool
	ended     bool
	frozen    []*system.FileSystem
}

func newFrost() *frost { return &frost{spreading: true} }

var errNothing = errors.New("the guest has no file system that can be frozen")
var errTooLate = errors.New("freezing took too long")

// spread freezes all file systems. What cannot be frozen is at least written out, and what can
// be then has little left to do while the others wait.
func (f *frost) spread(s system.System) error {
	all, err := s.FileSystems()
	if err != nil {
		return err
	}
	s.Sync()
	for i, next := range all {
		if err := f.add(next); err != nil {
			system.CloseAll(all[i+1:])
			return err
		}
	}
	return nil
}

// settle says that the frost spreads no more, and tells whether it is one.
func (f *frost) settle(err error) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.spreading = false
	switch {
	case err != nil:
		return err
	case f.ended:
		return errTooLate
	case len(f.frozen) == 0:
		return errNothing
	}
	return nil
}

// add freezes one more. That waits for writes that are on their way; whatever they wait for in
// turn, end thaws what is frozen so far when the time is over.
func (f *frost) add(next *system.FileSystem) error {
	frozen, err := next.Freeze()
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if frozen && !f.ended {
		f.frozen = append(f.frozen, next)
		return nil
	}
	if frozen {
		next.Thaw()
	}
	system.CloseAll([]*system.FileSystem{next})
	if err != nil {
		return errors.New(next.Path + ": " + err.Error())
	}
	if f.ended {
		return errTooLate
	}
	return nil
}

func (f *frost) paths() []string {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return paths(f.frozen)
}

// end thaws, the last frozen first, and returns what it has thawed: nothing the second time.
func (f *frost) end() (thawed []string, settled bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.ended {
		return nil, !f.spreading
	}
	f.ended = true
	slices.Reverse(f.frozen)
	for _, next := range f.frozen {
		next.Thaw()
	}
	system.CloseAll(f.frozen)
	return paths(f.frozen), !f.spreading
}

func paths(all []*system.FileSystem) []string {
	var paths []string
	for _, next := range all {
		paths = append(paths, next.Path)
	}
	return paths
}
