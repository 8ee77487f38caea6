package yamux

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync"
	"time"
)

const maxStreams = 256

// stallTimeout is how long the rest of a frame may take once its header has come. Where the host
// was replaced in the middle of a frame, this is what notices. Tests shorten it.
var stallTimeout = 5 * time.Second

// Conn is what a session runs on.
type Conn interface {
	io.WriteCloser
	SetReadDeadline(time.Time) error
	// Back tells, at the end of what there is to read, whether the host is there again.
	Back() bool
}

// Session is one connection's streams. Make one with Serve.
type Session struct {
	conn     Conn
	reader   *bufio.Reader
	takeover []byte
	accept   func(*Stream)
	control  chan header
	done     chan struct{}

	writing sync.Mutex
	buffer  []byte // for the frame that leaves

	mutex    sync.Mutex
	err      error
	streams  map[uint32]*Stream
	lastPeer uint32 // highest stream number that the host has opened
	next     uint32 // number of the next stream that the agent opens
}

// Serve starts a session. accept is called, in a goroutine of its own, for each stream that the
// host opens. Where takeover, which no frame begins with, stands in place of a frame, the session
// ends with ErrReplaced, leaves the connection open and the reader before it.
func Serve(reader *bufio.Reader, conn Conn, takeover []byte, accept func(*Stream)) *Session {
	s := &Session{
		conn: conn, reader: reader, takeover: takeover, accept: accept,
		control: make(chan header, 1024),
		done:    make(chan struct{}),
		buffer:  make([]byte, 0, headerSize+maxChunk),
		streams: map[uint32]*Stream{},
		next:    2,
	}
	go s.controlLoop()
	go func() { s.fail(s.readLoop()) }()
	return s
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err tells why the session ended.
func (s *Session) Err() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.err
}

// Close ends the session and its connection.
func (s *Session) Close() { s.fail(ErrClosed) }

// Open opens a stream; the host hears of it with the first bytes written.
func (s *Session) Open() (*Stream, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if len(s.streams) >= maxStreams || s.next > 1<<31 {
		return nil, errors.New("yamux: too many streams")
	}
	stream := newStream(s, s.next, flagSYN)
	s.streams[s.next] = stream
	s.next += 2
	return stream, nil
}

func (s *Session) fail(err error) {
	s.mutex.Lock()
	if s.err != nil {
		s.mutex.Unlock()
		return
	}
	s.err = err
	streams := s.streams
	s.streams = map[uint32]*Stream{}
	s.mutex.Unlock()
	if err == ErrReplaced {
		s.writing.Lock() // a frame that is leaving leaves before what is said next
		defer s.writing.Unlock()
	} else {
		s.conn.Close()
	}
	close(s.done)
	for _, stream := range streams {
		stream.abort(ErrClosed)
	}
}

func (s *Session) forget(id uint32) {
	s.mutex.Lock()
	delete(s.streams, id)
	s.mutex.Unlock()
}

// controlLoop sends what tell has queued.
func (s *Session) controlLoop() {
	for {
		select {
		case h := <-s.control:
			if s.send(h, nil) != nil {
				return
			}
		case <-s.done:
			return
		}
	}
}

// tell queues a control frame without waiting: the read loop must never wait for the writer.
// It may be called with the lock of a stream or of the session held.
func (s *Session) tell(h header) {
	select {
	case s.control <- h:
	default:
		go s.fail(errors.New("yamux: the host does not read"))
	}
}

// send writes a frame and returns when it has left, so that body may be used again. Whoever sends
// writes: a goroutine for it would cost a small program two changes of goroutines for each frame.
func (s *Session) send(h header, body []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.Err() != nil {
		return ErrClosed
	}
	s.buffer = append(append(s.buffer[:0], h[:]...), body...)
	if _, err := s.conn.Write(s.buffer); err != nil {
		s.fail(err)
		return ErrClosed
	}
	return nil
}

func (s *Session) readLoop() error {
	for {
		head, err := s.reader.Peek(headerSize)
		if err == io.EOF && len(head) == 0 && s.conn.Back() {
			continue
		}
		if err != nil {
			return err
		}
		if bytes.HasPrefix(head, s.takeover) {
			return ErrReplaced
		}
		h := header(head)
		s.reader.Discard(headerSize)
		if err := h.check(); err != nil {
			return err
		}
		if err := s.handle(&h); err != nil {
			return err
		}
	}
}

func (s *Session) handle(h *header) error {
	switch h.kind() {
	case typePing:
		if h.flags()&flagSYN != 0 {
			s.tell(newHeader(typePing, flagACK, 0, h.length()))
		}
		return nil
	case typeGoAway:
		return errors.New("yamux: the host said go away")
	}
	stream, err := s.find(h)
	if err != nil {
		return err
	}
	if h.kind() == typeData {
		err = s.readBody(stream, h.length())
	} else if stream != nil {
		err = stream.grow(h.length())
	}
	if err == nil && stream != nil {
		stream.flagged(h.flags())
	}
	return err
}

// find is the stream a frame belongs to; nil for one that is over. A frame for a stream that
// never was breaks the protocol.
func (s *Session) find(h *header) (*Stream, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	id := h.stream()
	if h.flags()&flagSYN == 0 {
		known := id <= s.lastPeer
		if id%2 == 0 {
			known = id < s.next
		}
		if !known {
			return nil, errProtocol
		}
		return s.streams[id], nil
	}
	if id%2 == 0 || id <= s.lastPeer {
		return nil, errProtocol
	}
	s.lastPeer = id
	if s.err != nil || len(s.streams) >= maxStreams {
		s.tell(newHeader(typeWindow, flagRST, id, 0))
		return nil, nil
	}
	stream := newStream(s, id, flagACK)
	s.streams[id] = stream
	go s.accept(stream)
	return stream, nil
}

// readBody takes the bytes of a Data frame; those of a stream that is over are dropped.
func (s *Session) readBody(stream *Stream, length uint32) error {
	if length > initialWindow || (stream != nil && !stream.reserve(length)) {
		return errProtocol
	}
	if int(length) > s.reader.Buffered() {
		s.conn.SetReadDeadline(time.Now().Add(stallTimeout))
		defer s.conn.SetReadDeadline(time.Time{})
	}
	for length > 0 {
		piece, err := s.reader.Peek(int(min(length, 16<<10)))
		if err != nil {
			return err
		}
		if stream != nil {
			stream.receive(piece)
		}
		s.reader.Discard(len(piece))
		length -= uint32(len(piece))
	}
	return nil
}
