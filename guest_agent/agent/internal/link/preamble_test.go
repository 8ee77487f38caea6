package link

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"testing"
	"time"
)

var (
	hostA = nonce(bytes.Repeat([]byte("h"), nonceSize))
	hostB = nonce(bytes.Repeat([]byte("o"), nonceSize))
	agent = nonce(bytes.Repeat([]byte("a"), nonceSize))
)

func offer(host nonce) []byte {
	return preamble{kind: kindOffer, version: ProtocolVersion, host: host}.encode()
}

func TestPreambleHasTheBytesOfTheSpecification(t *testing.T) {
	p := preamble{kind: kindStart, version: 1, host: hostA, agent: agent}
	want := "894e5841470d0a1a" + "03010000" + hex.EncodeToString(hostA[:]) + hex.EncodeToString(agent[:]) + "22238cbf"
	if got := hex.EncodeToString(p.encode()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, ok := decode(p.encode()); !ok || got != p {
		t.Errorf("got %+v", got)
	}
}

// end is the agent's end of a pipe; hosts that have left come back as often as it says.
type end struct {
	io.ReadWriter
	back *int
}

func (e end) Back() bool {
	if e.back == nil || *e.back == 0 {
		return false
	}
	*e.back--
	return true
}

// shake runs the agent's side and gives the other end of its pipe.
func shake(t *testing.T) (net.Conn, <-chan error) {
	ours, theirs := net.Pipe()
	theirs.SetDeadline(time.Now().Add(time.Minute))
	done := make(chan error, 1)
	go func() { done <- Handshake(bufio.NewReader(ours), end{ours, nil}) }()
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
	})
	return theirs, done
}

func answer(t *testing.T, conn net.Conn) preamble {
	t.Helper()
	var got [preambleSize]byte
	if _, err := io.ReadFull(conn, got[:]); err != nil {
		t.Fatal(err)
	}
	p, ok := decode(got[:])
	if !ok || p.kind != kindAnswer {
		t.Fatalf("not an answer: %x", got)
	}
	return p
}

func TestHandshakeFindsTheLastHost(t *testing.T) {
	conn, done := shake(t)
	conn.Write([]byte("the rest of an earlier host's frame\x89NXAG\r\n"))
	damaged := offer(hostA)
	damaged[20] ^= 1
	conn.Write(damaged)
	conn.Write(offer(hostA))
	first := answer(t, conn)
	conn.Write(offer(hostA)) // the same host again: no second answer
	conn.Write(preamble{kind: kindStart, version: 1, host: hostA, agent: agent}.encode())
	conn.Write(offer(hostB))
	second := answer(t, conn)
	if first.host != hostA || second.host != hostB || first.agent == second.agent {
		t.Errorf("answers %+v, %+v", first, second)
	}
	conn.Write(preamble{kind: kindStart, version: 1, host: hostA, agent: first.agent}.encode()) // too late
	conn.Write(preamble{kind: kindStart, version: 1, host: hostB, agent: second.agent}.encode())
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHandshakeRefusesAnotherVersion(t *testing.T) {
	conn, done := shake(t)
	conn.Write(offer(hostA))
	got := answer(t, conn)
	conn.Write(preamble{kind: kindStart, version: 2, host: hostA, agent: got.agent}.encode())
	if err := <-done; err == nil {
		t.Error("it speaks version 2")
	}
}

func TestHandshakeEndsWithItsHost(t *testing.T) {
	conn, done := shake(t)
	conn.Write(offer(hostA)[:30])
	conn.Close()
	if err := <-done; err == nil {
		t.Error("no error")
	}
}

// pieces come one after the other, with an end of file after each.
type pieces struct {
	left  [][]byte
	ended bool
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.ended = !p.ended; !p.ended || len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.left[0])
	p.left = p.left[1:]
	return n, nil
}

func TestWhatAHostSaidBeforeItLookedGoneIsNotLost(t *testing.T) {
	back, said := 2, new(bytes.Buffer)
	reader := bufio.NewReader(&pieces{left: [][]byte{offer(hostA)[:20], offer(hostA)[20:]}})
	if err := Handshake(reader, end{said, &back}); err != io.EOF {
		t.Error(err)
	}
	if p, ok := decode(said.Bytes()); !ok || p.kind != kindAnswer || p.host != hostA {
		t.Errorf("answered %x", said.Bytes())
	}
}

// FuzzScan puts any bytes before a preamble: the preamble is found, and nothing after it is lost.
func FuzzScan(f *testing.F) {
	f.Add([]byte{})
	f.Add(magic[:])
	f.Add(bytes.Repeat(magic[:1], 100))
	f.Add(offer(hostA)[:47])
	f.Add(append(magic[:7], magic[:]...))
	f.Fuzz(func(t *testing.T, before []byte) {
		last := offer(hostB)
		reader := bufio.NewReader(bytes.NewReader(append(append(bytes.Clone(before), last...), "rest"...)))
		for {
			p, err := scan(reader, end{})
			if err != nil {
				t.Fatalf("lost behind %x: %v", before, err)
			}
			if p.host == hostB && p.kind == kindOffer {
				break
			}
		}
		if rest, _ := io.ReadAll(reader); !bytes.HasSuffix(rest, []byte("rest")) {
			t.Errorf("left %q", rest)
		}
	})
}
