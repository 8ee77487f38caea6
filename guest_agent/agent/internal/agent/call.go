package agent

import (
	"encoding/binary"
	"errors"
	"io"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/yamux"
)

// maxHeader bounds the JSON at the start of a stream, in bytes.
const maxHeader = 64 << 10

// call is one stream that the host has opened: its header, and the way to answer.
type call struct {
	request minijson.Object
	stream  *yamux.Stream
	replied bool
}

// reply sends the answer's header: fields, and "ok": true. Raw bytes may follow it on the stream.
func (c *call) reply(fields minijson.Object) error {
	if fields == nil {
		fields = minijson.Object{}
	}
	fields["ok"] = true
	c.replied = true
	return writeHeader(c.stream, fields)
}

// refuse sends an error as the answer.
func (c *call) refuse(code, text string) error {
	c.replied = true
	return writeHeader(c.stream, minijson.Object{
		"ok": false, "error": minijson.Object{"code": code, "text": text},
	})
}

func writeHeader(w io.Writer, object minijson.Object) error {
	text := minijson.Encode(object)
	if len(text) > maxHeader {
		return errors.New("the header is too long")
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

func readHeader(r io.Reader) (minijson.Object, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxHeader {
		return nil, errors.New("the header is too long")
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, err
	}
	return minijson.Decode(text)
}
