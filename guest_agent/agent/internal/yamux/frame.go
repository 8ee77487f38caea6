// Package yamux carries many streams over one connection, in the framing of the public
// yamux specification: a header of 12 bytes (version, type, flags, stream, length; big endian)
// and, for Data, length bytes. Numbers of streams are even on the agent's side.
package yamux

import (
	"encoding/binary"
	"errors"
)

const (
	headerSize    = 12
	initialWindow = 256 << 10
	// maxChunk is the most data the agent puts into one frame: with its header it fits the
	// 32 KiB that the virtio console driver takes in one call.
	maxChunk = 32<<10 - headerSize
)

const (
	typeData = iota
	typeWindow
	typePing
	typeGoAway
)

const (
	flagSYN = 1 << iota
	flagACK
	flagFIN
	flagRST
)

var (
	errProtocol = errors.New("yamux: the peer broke the protocol")
	// ErrReplaced is why a session ended whose connection another conversation took over.
	ErrReplaced = errors.New("yamux: another conversation has begun")
	// ErrReset is what reading and writing give once either side has reset the stream.
	ErrReset = errors.New("yamux: stream reset")
	// ErrClosed is what reading and writing give once the session has ended.
	ErrClosed = errors.New("yamux: session ended")
)

type header [headerSize]byte

func newHeader(kind uint8, flags uint16, stream, length uint32) (h header) {
	h[1] = kind
	binary.BigEndian.PutUint16(h[2:], flags)
	binary.BigEndian.PutUint32(h[4:], stream)
	binary.BigEndian.PutUint32(h[8:], length)
	return h
}

func (h *header) version() uint8 { return h[0] }
func (h *header) kind() uint8    { return h[1] }
func (h *header) flags() uint16  { return binary.BigEndian.Uint16(h[2:]) }
func (h *header) stream() uint32 { return binary.BigEndian.Uint32(h[4:]) }
func (h *header) length() uint32 { return binary.BigEndian.Uint32(h[8:]) }

func (h *header) check() error {
	const known = flagSYN | flagACK | flagFIN | flagRST
	if h.version() != 0 || h.kind() > typeGoAway || h.flags()&^uint16(known) != 0 {
		return errProtocol
	}
	if onSession := h.kind() >= typePing; onSession != (h.stream() == 0) {
		return errProtocol
	}
	return nil
}
