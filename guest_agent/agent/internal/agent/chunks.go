package agent

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/sessions"
	"nexus/agent/internal/yamux"
)

// The kinds of chunks: what one stream carries for a program and about it.
const (
	chunkStdin  = 0 // host: bytes for the standard input; none for its end
	chunkStdout = 1
	chunkStderr = 2
	chunkExit   = 3 // JSON, the last chunk
	chunkSignal = 4 // host: one byte, the signal's number
	chunkWindow = 5 // four bytes: how many more bytes of input the host may send
	chunkResize = 6 // host: rows and columns of the terminal, two bytes each
	chunkGap    = 7 // eight bytes: the offset of the next output, which is not the next byte's
)

const (
	chunkHeader = 5
	maxChunk    = 256 << 10
	// outputChunk makes a chunk of output fill one frame of a stream.
	outputChunk = 32<<10 - 64
)

// chunkWriter sends chunks; its callers take turns.
type chunkWriter struct {
	mutex  sync.Mutex
	stream *yamux.Stream
}

// send sends one chunk, whose data lie in room behind space for the chunk's header.
func (w *chunkWriter) send(kind byte, room []byte) error {
	writeLength(kind, room)
	w.mutex.Lock()
	defer w.mutex.Unlock()
	_, err := w.stream.Write(room)
	return err
}

// sendExit sends the last chunk, and the half-close with it.
func (w *chunkWriter) sendExit(how sessions.Exit) error {
	room := append(make([]byte, chunkHeader), minijson.Encode(exitObject(how))...)
	writeLength(chunkExit, room)
	w.mutex.Lock()
	defer w.mutex.Unlock()
	_, err := w.stream.WriteLast(room)
	return err
}

func writeLength(kind byte, room []byte) {
	room[0] = kind
	binary.BigEndian.PutUint32(room[1:], uint32(len(room)-chunkHeader))
}

// rooms are for chunks of output: room for one is needed for each pipe of each program.
var rooms = sync.Pool{New: func() any { return new([chunkHeader + outputChunk]byte) }}

type room = *[chunkHeader + outputChunk]byte

// readChunk reads the host's next chunk into buffer, which grows to what chunks need.
func readChunk(r io.Reader, buffer []byte) (kind byte, data []byte, err error) {
	var header [chunkHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, buffer, err
	}
	length := int(binary.BigEndian.Uint32(header[1:]))
	if length > maxChunk {
		return 0, buffer, errors.New("the chunk is too long")
	}
	if cap(buffer) < length {
		buffer = make([]byte, length)
	}
	_, err = io.ReadFull(r, buffer[:length])
	return header[0], buffer[:length], err
}

// inbox holds input that the program has not taken yet, at most a window: so the host's signals
// never wait behind input that nobody reads.
type inbox struct {
	mutex   sync.Mutex
	changed sync.Cond
	held    []byte
	free    int  // bytes that the host may still send
	ended   bool // the host has said so
	over    bool // nobody takes it any more; what is on its way is dropped
}

const inputWindow = 64 << 10

func newInbox() *inbox {
	b := &inbox{free: inputWindow}
	b.changed.L = &b.mutex
	return b
}

// put adds input, or ends it; false when the host may not send it.
func (b *inbox) put(data []byte) bool {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.ended || len(data) > b.free {
		return false
	}
	b.free -= len(data)
	if b.over {
		return true
	}
	b.held = append(b.held, data...)
	b.ended = len(data) == 0
	b.changed.Broadcast()
	return true
}

// take waits for input and takes it all; nothing at its end.
func (b *inbox) take() []byte {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	for len(b.held) == 0 && !b.ended && !b.over {
		b.changed.Wait()
	}
	taken := b.held
	b.held = nil
	if b.over {
		return nil
	}
	return taken
}

// allow lets the host send n bytes more.
func (b *inbox) allow(n int) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.free += n
}

// end is for a program that has ended. The host cannot know yet and may be sending.
func (b *inbox) end() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.over = true
	b.changed.Broadcast()
}
