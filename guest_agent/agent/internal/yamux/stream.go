package yamux

import (
	"io"
	"sync"
)

// Stream is one stream of a session: an io.Reader, an io.Writer, and a half-close.
// One goroutine may read and another write at the same time.
type Stream struct {
	session *Session
	id      uint32

	mutex    sync.Mutex
	changed  sync.Cond
	received []byte
	allowed  uint32 // bytes that the host may still send
	owed     uint32 // bytes read whose window has not been given back
	window   uint32 // bytes that the agent may still send
	flags    uint16 // SYN or ACK, for the first frame that leaves
	sentFIN  bool
	gotFIN   bool
	err      error
}

func newStream(session *Session, id uint32, flags uint16) *Stream {
	s := &Stream{session: session, id: id, flags: flags, allowed: initialWindow, window: initialWindow}
	s.changed.L = &s.mutex
	return s
}

// Read fills p with what has come; io.EOF after the host's half-close.
func (s *Stream) Read(p []byte) (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for len(s.received) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.gotFIN {
			return 0, io.EOF
		}
		s.changed.Wait()
	}
	n := copy(p, s.received)
	if s.received = s.received[n:]; len(s.received) == 0 {
		s.received = nil
	}
	s.giveBack(uint32(n))
	return n, nil
}

// giveBack returns window to the host, half a window at a time. Called with the lock held.
func (s *Stream) giveBack(n uint32) {
	s.owed += n
	if s.owed < initialWindow/2 || s.gotFIN || s.err != nil {
		return
	}
	s.session.tell(newHeader(typeWindow, s.takeFlags(), s.id, s.owed))
	s.allowed += s.owed
	s.owed = 0
}

func (s *Stream) takeFlags() uint16 {
	flags := s.flags
	s.flags = 0
	return flags
}

// Write sends p, waiting for the host's window where it must.
func (s *Stream) Write(p []byte) (int, error) { return s.write(p, false) }

// WriteLast is Write and CloseWrite in one: the half-close leaves with the last bytes of p, of
// which there must be some.
func (s *Stream) WriteLast(p []byte) (int, error) { return s.write(p, true) }

func (s *Stream) write(p []byte, last bool) (int, error) {
	sent := 0
	for sent < len(p) {
		n, flags, err := s.takeWindow(len(p)-sent, last)
		if err != nil {
			return sent, err
		}
		h := newHeader(typeData, flags, s.id, uint32(n))
		if err := s.session.send(h, p[sent:sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// takeWindow is how many of the bytes that are left may leave now, and the flags of their frame.
func (s *Stream) takeWindow(left int, last bool) (int, uint16, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for s.window == 0 && s.err == nil {
		s.changed.Wait()
	}
	if s.err != nil {
		return 0, 0, s.err
	}
	if s.sentFIN {
		return 0, 0, io.ErrClosedPipe
	}
	n := min(left, maxChunk, int(s.window))
	s.window -= uint32(n)
	flags := s.takeFlags()
	if last && n == left {
		flags |= flagFIN
		s.sentFIN = true
		s.endIfBothClosed()
	}
	return n, flags, nil
}

// CloseWrite is the half-close: the host reads end of file after what was written.
func (s *Stream) CloseWrite() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.sentFIN || s.err != nil {
		return
	}
	s.sentFIN = true
	s.session.tell(newHeader(typeWindow, s.takeFlags()|flagFIN, s.id, 0))
	s.endIfBothClosed()
}

// Reset ends the stream at once, for both sides; after a whole exchange it does nothing.
func (s *Stream) Reset() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.err != nil || (s.sentFIN && s.gotFIN) {
		return
	}
	s.session.tell(newHeader(typeWindow, s.takeFlags()|flagRST, s.id, 0))
	s.end(ErrReset)
}

func (s *Stream) abort(err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.err == nil {
		s.err = err
		s.changed.Broadcast()
	}
}

// end is called with the lock held.
func (s *Stream) end(err error) {
	s.err = err
	s.changed.Broadcast()
	s.session.forget(s.id)
}

func (s *Stream) endIfBothClosed() {
	if s.sentFIN && s.gotFIN {
		s.session.forget(s.id)
	}
}

// reserve takes n bytes out of what the host may send; false when that is too much.
func (s *Stream) reserve(n uint32) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if n > s.allowed || (s.gotFIN && n > 0) {
		return false
	}
	s.allowed -= n
	return true
}

func (s *Stream) receive(piece []byte) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.err == nil {
		s.received = append(s.received, piece...)
		s.changed.Broadcast()
	}
}

// grow adds what a window update of the host allows.
func (s *Stream) grow(n uint32) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.window+n < s.window {
		return errProtocol
	}
	s.window += n
	s.changed.Broadcast()
	return nil
}

// flagged acts on the FIN and RST of a frame, after its data.
func (s *Stream) flagged(flags uint16) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if flags&flagFIN != 0 && !s.gotFIN {
		s.gotFIN = true
		s.changed.Broadcast()
		s.endIfBothClosed()
	}
	if flags&flagRST != 0 && s.err == nil {
		s.end(ErrReset)
	}
}
