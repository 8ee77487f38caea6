package yamux

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

const patience = 60 * time.Second

var takeover = []byte("\x89next")

// port is a connection that comes to its end with every word of leaves, and goes on with the next
// of its host.
type port struct {
	net.Conn
	leaves chan bool
}

func (p port) Read(b []byte) (int, error) {
	select {
	case <-p.leaves:
		return 0, io.EOF
	default:
		return p.Conn.Read(b)
	}
}

func (p port) Back() bool { return p.leaves != nil }

// peer is a host in the test's hands.
type peer struct {
	*testing.T
	conn net.Conn
}

// start gives a session whose streams echo, and its peer.
func start(t *testing.T) (*Session, *peer) {
	ours, theirs := net.Pipe()
	session := Serve(bufio.NewReaderSize(ours, 64<<10), port{Conn: ours}, takeover, func(stream *Stream) {
		io.Copy(stream, stream)
		stream.CloseWrite()
	})
	theirs.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() {
		session.Close()
		theirs.Close()
	})
	return session, &peer{t, theirs}
}

func (p *peer) send(kind uint8, flags uint16, stream uint32, length int, body []byte) {
	p.Helper()
	h := newHeader(kind, flags, stream, uint32(length))
	if _, err := p.conn.Write(append(h[:], body...)); err != nil {
		p.Fatal(err)
	}
}

func (p *peer) data(flags uint16, stream uint32, text string) {
	p.Helper()
	p.send(typeData, flags, stream, len(text), []byte(text))
}

func (p *peer) receive() (h header, body []byte) {
	p.Helper()
	if _, err := io.ReadFull(p.conn, h[:]); err != nil {
		p.Fatal(err)
	}
	if h.kind() == typeData {
		body = make([]byte, h.length())
		if _, err := io.ReadFull(p.conn, body); err != nil {
			p.Fatal(err)
		}
	}
	return h, body
}

func (p *peer) expect(kind uint8, flags uint16, stream, length uint32) []byte {
	p.Helper()
	h, body := p.receive()
	if want := newHeader(kind, flags, stream, length); h != want {
		p.Fatalf("got %x, want %x", h, want)
	}
	return body
}

// ends waits for the session to end and gives its reason.
func ends(t *testing.T, s *Session) error {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("the session goes on")
	}
	return s.Err()
}

func TestEchoAndHalfClose(t *testing.T) {
	_, p := start(t)
	p.data(flagSYN, 1, "hello")
	if got := p.expect(typeData, flagACK, 1, 5); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
	p.data(flagFIN, 1, "")
	p.expect(typeWindow, flagFIN, 1, 0)
}

func TestPing(t *testing.T) {
	_, p := start(t)
	p.send(typePing, flagSYN, 0, 42, nil)
	p.expect(typePing, flagACK, 0, 42)
}

func TestOpenedStream(t *testing.T) {
	session, p := start(t)
	stream, err := session.Open()
	if err != nil {
		t.Fatal(err)
	}
	go stream.Write([]byte("hi"))
	if got := p.expect(typeData, flagSYN, 2, 2); string(got) != "hi" {
		t.Errorf("got %q", got)
	}
	p.data(flagACK|flagFIN, 2, "bye")
	got, err := io.ReadAll(stream)
	if string(got) != "bye" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTheLastWriteCarriesTheHalfClose(t *testing.T) {
	session, p := start(t)
	stream, _ := session.Open()
	written := make(chan error, 1)
	go func() {
		_, err := stream.WriteLast(make([]byte, maxChunk+5))
		written <- err
	}()
	p.expect(typeData, flagSYN, 2, maxChunk)
	p.expect(typeData, flagFIN, 2, 5)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Error("it writes after its half-close:", err)
	}
	stream.CloseWrite() // nothing is left to tell
	p.send(typePing, flagSYN, 0, 1, nil)
	p.expect(typePing, flagACK, 0, 1)
}

func TestWriterWaitsForTheWindow(t *testing.T) {
	session, p := start(t)
	stream, _ := session.Open()
	written := make(chan error, 1)
	go func() {
		_, err := stream.Write(make([]byte, initialWindow+10))
		written <- err
	}()
	for got := 0; got < initialWindow; {
		_, body := p.receive()
		got += len(body)
	}
	p.send(typePing, flagSYN, 0, 1, nil)
	p.expect(typePing, flagACK, 0, 1) // nothing but the answer comes
	select {
	case <-written:
		t.Fatal("it wrote beyond the window")
	default:
	}
	p.send(typeWindow, 0, 2, 10, nil)
	p.expect(typeData, 0, 2, 10)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}

func TestWindowComesBack(t *testing.T) {
	ours, theirs := net.Pipe()
	accepted := make(chan *Stream, 1)
	session := Serve(bufio.NewReaderSize(ours, 64<<10), port{Conn: ours}, takeover, func(s *Stream) { accepted <- s })
	defer session.Close()
	defer theirs.Close()
	p := &peer{t, theirs}
	p.send(typeData, flagSYN, 1, initialWindow, make([]byte, initialWindow))
	go io.CopyN(io.Discard, <-accepted, initialWindow)
	h, _ := p.receive()
	if h.kind() != typeWindow || h.length() < initialWindow/2 || h.flags() != flagACK {
		t.Fatalf("got %x", h)
	}
}

func TestReset(t *testing.T) {
	session, p := start(t)
	stream, _ := session.Open()
	go stream.Write([]byte("x"))
	p.expect(typeData, flagSYN, 2, 1)
	p.data(0, 2, "last words")
	p.send(typeWindow, flagRST, 2, 0, nil)
	got, err := io.ReadAll(stream)
	if string(got) != "last words" || !errors.Is(err, ErrReset) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := stream.Write([]byte("x")); !errors.Is(err, ErrReset) {
		t.Error(err)
	}
	// Frames for a stream that is over are dropped.
	p.data(0, 2, "late")
	p.send(typePing, flagSYN, 0, 9, nil)
	p.expect(typePing, flagACK, 0, 9)
}

func TestTooManyStreams(t *testing.T) {
	_, p := start(t)
	for i := range uint32(maxStreams) {
		p.data(flagSYN, 2*i+1, "")
	}
	p.data(flagSYN, 2*maxStreams+1, "")
	p.expect(typeWindow, flagRST, 2*maxStreams+1, 0)
}

func TestViolationsEndTheSession(t *testing.T) {
	frame := func(kind uint8, flags uint16, stream uint32, length uint32) []byte {
		h := newHeader(kind, flags, stream, length)
		return h[:]
	}
	version := frame(typeData, flagSYN, 1, 0)
	version[0] = 1
	for name, sent := range map[string][]byte{
		"version":        version,
		"type":           frame(4, 0, 1, 0),
		"flags":          frame(typeData, 16, 1, 0),
		"ping on stream": frame(typePing, flagSYN, 1, 0),
		"data on none":   frame(typeData, flagSYN, 0, 0),
		"never was":      frame(typeData, 0, 1, 0),
		"its own number": frame(typeData, flagSYN, 2, 0),
		"too long":       frame(typeData, flagSYN, 1, initialWindow+1),
		"window":         append(frame(typeWindow, flagSYN, 1, 0), frame(typeWindow, 0, 1, 1<<32-1)...),
		"twice":          append(frame(typeWindow, flagSYN, 1, 0), frame(typeWindow, flagSYN, 1, 0)...),
		"after its end":  append(append(frame(typeWindow, flagSYN|flagFIN, 1, 0), frame(typeData, 0, 1, 1)...), 'x'),
	} {
		t.Run(name, func(t *testing.T) {
			session, p := start(t)
			go io.Copy(io.Discard, p.conn)
			p.conn.Write(sent)
			if err := ends(t, session); !errors.Is(err, errProtocol) {
				t.Error(err)
			}
			if _, err := session.Open(); err == nil {
				t.Error("it still opens streams")
			}
		})
	}
}

func TestFrameThatStopsEndsTheSession(t *testing.T) {
	usual := stallTimeout
	stallTimeout = 50 * time.Millisecond
	defer func() { stallTimeout = usual }()
	session, p := start(t)
	p.send(typeData, flagSYN, 1, 100, []byte("not a hundred"))
	if err := ends(t, session); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

func TestAnotherConversationTakesTheConnectionOver(t *testing.T) {
	session, p := start(t)
	stream, _ := session.Open()
	p.conn.Write(takeover)
	p.conn.Write([]byte(" conversation"))
	if err := ends(t, session); err != ErrReplaced {
		t.Fatal(err)
	}
	if _, err := stream.Write([]byte("late")); !errors.Is(err, ErrClosed) {
		t.Error("a stream of the old one writes:", err)
	}
	rest := make([]byte, len("\x89next conversation"))
	if _, err := io.ReadFull(session.reader, rest); err != nil || !bytes.HasPrefix(rest, takeover) {
		t.Errorf("got %q, %v", rest, err)
	}
	go session.conn.Write([]byte("answer"))
	if _, err := io.ReadFull(p.conn, rest[:6]); err != nil || string(rest[:6]) != "answer" {
		t.Errorf("got %q, %v", rest[:6], err)
	}
}

func TestAFrameThatLeavesComesBeforeTheNextConversation(t *testing.T) {
	session, p := start(t)
	stream, _ := session.Open()
	go stream.Write([]byte("whole"))
	half := make([]byte, 6)
	if _, err := io.ReadFull(p.conn, half); err != nil {
		t.Fatal(err)
	}
	p.conn.Write(append(takeover, " conversation"...))
	select {
	case <-session.Done():
		t.Fatal("it ended in the middle of a frame")
	case <-time.After(20 * time.Millisecond):
	}
	if _, err := io.ReadFull(p.conn, make([]byte, headerSize+5-6)); err != nil {
		t.Fatal(err)
	}
	if err := ends(t, session); err != ErrReplaced {
		t.Fatal(err)
	}
}

func TestAHostThatIsBackGoesOn(t *testing.T) {
	ours, theirs := net.Pipe()
	theirs.SetDeadline(time.Now().Add(patience))
	defer theirs.Close()
	leaving := port{ours, make(chan bool, 3)}
	for range 3 {
		leaving.leaves <- true
	}
	session := Serve(bufio.NewReaderSize(leaving, 64<<10), leaving, takeover, func(*Stream) {})
	defer session.Close()
	p := &peer{t, theirs}
	p.send(typePing, flagSYN, 0, 7, nil)
	if h, _ := p.receive(); h.kind() != typePing || h.length() != 7 {
		t.Errorf("got %v", h)
	}
}

func TestEndReachesEveryStream(t *testing.T) {
	session, p := start(t)
	reading, _ := session.Open()
	writing, _ := session.Open()
	go io.Copy(io.Discard, p.conn)
	failed := make(chan error, 2)
	go func() {
		_, err := reading.Read(make([]byte, 1))
		failed <- err
	}()
	go func() {
		_, err := writing.Write(make([]byte, 2*initialWindow))
		failed <- err
	}()
	p.conn.Close()
	for range 2 {
		if err := <-failed; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
	if err := ends(t, session); err == nil {
		t.Error("no reason")
	}
}

// FuzzSession feeds a session any bytes: it must come to its end, and its streams with it.
func FuzzSession(f *testing.F) {
	ping := newHeader(typePing, flagSYN, 0, 1)
	syn := newHeader(typeData, flagSYN, 1, 3)
	f.Add(append(ping[:], append(syn[:], "abc"...)...))
	f.Add(bytes.Repeat(ping[:], 3000))
	f.Add([]byte("SSH-2.0-nonsense"))
	for kind := range uint8(5) {
		for flags := range uint16(17) {
			h := newHeader(kind, flags, uint32(flags%4), uint32(kind))
			f.Add(append(append(syn[:], "abc"...), h[:]...))
		}
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		session, p := start(t)
		stream, err := session.Open()
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, p.conn)
		p.conn.Write(sent)
		p.conn.Close()
		ends(t, session)
		if _, err := stream.Read(make([]byte, 1)); err == nil {
			io.Copy(io.Discard, stream)
		}
	})
}
