package sessions

import (
	"encoding/binary"
	"errors"
)

// maxViews bounds how many hosts may look at one session at once.
const maxViews = 16

// Event is what a View tells; the numbers are those of the protocol's chunks.
type Event byte

const (
	Output      Event = 1
	ErrorOutput Event = 2
	Ended       Event = 3
	Window      Event = 5
	Gap         Event = 7
)

// View is one host that looks at a session, from an offset of its output on, and gives input.
type View struct {
	session *Session
	at      uint64
	free    int // bytes of input that its host may send
	owed    int // bytes of input that the program has, and the host has not been told of
	told    bool
	left    bool
}

// ErrViews is for one host too many.
var ErrViews = errors.New("as many look at this session as the agent can mind")

// View begins at an offset, or at the oldest or newest byte that there is. The caller must Leave.
func (s *Session) View(offset uint64) (*View, uint64, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.views >= maxViews {
		return nil, 0, ErrViews
	}
	s.views++
	at := min(max(offset, s.output.first), s.output.size)
	return &View{session: s, at: at, free: InputWindow}, at, nil
}

// Next waits for what the host is to be told next and writes it into room; 0 when the view has
// been left or all has been told. Input that was taken comes before output, so that no host waits
// for leave to type.
func (v *View) Next(room []byte) (kind Event, n int) {
	s := v.session
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for {
		switch {
		case v.left || s.forgotten:
			return 0, 0
		case v.owed > 0:
			binary.BigEndian.PutUint32(room, uint32(v.owed))
			v.free, v.owed = v.free+v.owed, 0
			return Window, 4
		case v.at < s.output.first:
			v.at = s.output.first
			binary.BigEndian.PutUint64(room, v.at)
			return Gap, 8
		case v.at < s.output.size:
			kind, n, err := s.output.read(v.at, room)
			if err != nil {
				return 0, 0
			}
			v.at += uint64(n)
			return kind, n
		case s.exit != nil && !v.told:
			v.told = true
			return Ended, 0
		case v.told:
			return 0, 0
		}
		s.changed.Wait()
	}
}

// Put gives the program input, or ends it where data is empty; false when the host may not.
func (v *View) Put(data []byte) bool {
	s := v.session
	s.mutex.Lock()
	defer s.mutex.Unlock()
	ok := s.Input && s.input.put(v, data)
	s.changed.Broadcast()
	return ok
}

// Leave ends the view; what its host has sent still reaches the program.
func (v *View) Leave() {
	s := v.session
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !v.left {
		v.left = true
		s.views--
		s.input.leave(v)
		s.changed.Broadcast()
	}
}
