// Package link finds the host and agrees with it where the conversation begins.
package link

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"nexus/agent/internal/system"
)

// ProtocolVersion is the version of docs/agent-protocol.md that this agent speaks.
const ProtocolVersion = 1

const (
	preambleSize = 48
	nonceSize    = 16
)

// Kinds of preamble: the host's offer, the agent's answer, the host's start.
const (
	kindOffer  = 1
	kindAnswer = 2
	kindStart  = 3
)

// Magic is what every preamble begins with, and no frame of a session.
var Magic = magic[:]

var magic = [8]byte{0x89, 'N', 'X', 'A', 'G', '\r', '\n', 0x1a}

type nonce [nonceSize]byte

// preamble is what both sides say before the first frame; see docs/agent-protocol.md.
type preamble struct {
	kind    uint8
	version uint8
	host    nonce
	agent   nonce
}

func (p preamble) encode() []byte {
	out := append([]byte(nil), magic[:]...)
	out = append(out, p.kind, p.version, 0, 0)
	out = append(out, p.host[:]...)
	out = append(out, p.agent[:]...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out))
}

// decode reads 48 bytes; false when they are no preamble.
func decode(b []byte) (p preamble, ok bool) {
	body := b[:preambleSize-4]
	if !bytes.HasPrefix(b, magic[:]) || crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(b[len(body):]) {
		return p, false
	}
	p.kind, p.version = b[8], b[9]
	copy(p.host[:], b[12:])
	copy(p.agent[:], b[12+nonceSize:])
	return p, true
}

// Other is the host's end, to write to. Back tells whether it is there again after it has left.
type Other interface {
	io.Writer
	Back() bool
}

// scan reads up to the end of the next preamble, whatever bytes lie before it.
func scan(reader *bufio.Reader, conn Other) (preamble, error) {
	for {
		window, err := reader.Peek(preambleSize)
		if err == io.EOF && conn.Back() {
			continue
		}
		if err != nil {
			return preamble{}, err
		}
		if p, ok := decode(window); ok {
			reader.Discard(preambleSize)
			return p, nil
		}
		// Skip to the next byte that can begin a preamble.
		skip := bytes.IndexByte(window[1:], magic[0]) + 1
		if skip == 0 {
			skip = preambleSize
		}
		reader.Discard(skip)
	}
}

// Handshake answers the host's offers until one is started. What lies in the stream from
// earlier sessions is skipped. It waits as long as the host does.
func Handshake(reader *bufio.Reader, conn Other) error {
	var current preamble
	for {
		p, err := scan(reader, conn)
		if err != nil {
			return err
		}
		switch {
		case p.kind == kindOffer && (current.kind == 0 || p.host != current.host):
			current = preamble{kind: kindAnswer, version: ProtocolVersion, host: p.host}
			if err := system.Random(current.agent[:]); err != nil {
				return err
			}
			if _, err := conn.Write(current.encode()); err != nil {
				return err
			}
		case p.kind == kindStart && current.kind != 0 && p.host == current.host && p.agent == current.agent:
			if p.version != ProtocolVersion {
				return errors.New("the host speaks another protocol version")
			}
			return nil
		}
	}
}
