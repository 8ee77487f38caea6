package tarball

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
)

// maxExtra bounds a header's additions: long names, and the records of pax.
const maxExtra = 64 << 10

// ErrFormat is for what is no archive.
var ErrFormat = errors.New("this is no tar archive")

// Reader reads an archive: of ustar, GNU or pax.
type Reader struct {
	from io.Reader
	left int64 // bytes of the entry and its padding that have not been read
	size int64 // bytes of the entry itself
}

// NewReader begins to read an archive.
func NewReader(from io.Reader) *Reader { return &Reader{from: from} }

// Next is the next entry; io.EOF at the archive's end.
func (r *Reader) Next() (Header, error) {
	var extra Header
	extra.Size = -1
	extra.Modified = math.MinInt64
	for {
		h, err := r.header()
		if err != nil {
			return h, err
		}
		switch h.Type {
		case gnuLongName, gnuLongLink, paxHeader, paxGlobal:
			err = r.addition(h, &extra)
		default:
			return r.complete(h, extra)
		}
		if err != nil {
			return h, err
		}
	}
}

// complete puts the additions into the header.
func (r *Reader) complete(h, extra Header) (Header, error) {
	if extra.Name != "" {
		h.Name = extra.Name
	}
	if extra.Target != "" {
		h.Target = extra.Target
	}
	if extra.Modified != math.MinInt64 {
		h.Modified = extra.Modified
	}
	if extra.Size >= 0 {
		h.Size = extra.Size
	}
	if h.Type == 0 || h.Type == '7' {
		h.Type = File
	}
	if h.Type == File && strings.HasSuffix(h.Name, "/") {
		h.Type = Directory
	}
	if h.Type != File {
		h.Size = 0
		if extra.Size > 0 {
			return h, ErrFormat
		}
		return h, nil
	}
	r.begin(h.Size)
	return h, nil
}

func (r *Reader) begin(size int64) { r.size, r.left = size, size+(-size&(block-1)) }

// header reads one block; what is left of the entry before is skipped.
func (r *Reader) header() (h Header, err error) {
	if _, err := io.CopyN(io.Discard, r.from, r.left); err != nil {
		return h, unexpected(err)
	}
	r.begin(0)
	var b [block]byte
	if _, err := io.ReadFull(r.from, b[:]); err != nil {
		return h, unexpected(err)
	}
	if b == [block]byte{} {
		return h, io.EOF
	}
	if number(b[148:156]) != checksum(&b) {
		return h, ErrFormat
	}
	h = Header{
		Name: text(b[0:100]), Target: text(b[157:257]), Type: b[156], Mode: uint32(number(b[100:108])) & 0o7777,
		UID: id(b[108:116]), GID: id(b[116:124]), Size: number(b[124:136]), Modified: number(b[136:148]),
	}
	if prefix := text(b[345:500]); prefix != "" && string(b[257:263]) == "ustar\x00" {
		h.Name = prefix + "/" + h.Name
	}
	if h.Size < 0 || h.Size > 1<<60 {
		return h, ErrFormat
	}
	return h, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func id(field []byte) uint32 {
	if n := number(field); n >= 0 && n < math.MaxUint32 {
		return uint32(n)
	}
	return 0
}

func text(field []byte) string {
	before, _, _ := bytes.Cut(field, []byte{0})
	return string(before)
}

// number reads octal digits, or GNU's bytes behind a mark; -1 for anything else.
func number(field []byte) (n int64) {
	if field[0]&0x80 != 0 {
		if field[0] != 0x80 {
			return -1
		}
		for _, c := range field[1:] {
			if n > math.MaxInt64>>9 {
				return -1
			}
			n = n<<8 | int64(c)
		}
		return n
	}
	digits := strings.Trim(text(field), " ")
	if digits == "" {
		return 0
	}
	n, err := strconv.ParseInt(digits, 8, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// addition reads an entry that says more of the one after it.
func (r *Reader) addition(h Header, extra *Header) error {
	if h.Size > maxExtra {
		return errors.New("an entry's name is too long")
	}
	content := make([]byte, h.Size)
	r.begin(h.Size)
	if _, err := io.ReadFull(r, content); err != nil {
		return unexpected(err)
	}
	switch h.Type {
	case gnuLongName:
		extra.Name = text(content)
	case gnuLongLink:
		extra.Target = text(content)
	case paxHeader:
		return pax(content, extra)
	}
	return nil
}

// pax reads records of "LENGTH KEY=VALUE\n".
func pax(records []byte, extra *Header) error {
	for len(records) > 0 {
		digits, _, found := bytes.Cut(records, []byte(" "))
		length, err := strconv.Atoi(string(digits))
		if !found || err != nil || length <= len(digits)+1 || length > len(records) {
			return ErrFormat
		}
		key, value, found := strings.Cut(string(records[len(digits)+1:length]), "=")
		value, newline := strings.CutSuffix(value, "\n")
		if !found || !newline {
			return ErrFormat
		}
		if err := paxRecord(key, value, extra); err != nil {
			return err
		}
		records = records[length:]
	}
	return nil
}

func paxRecord(key, value string, extra *Header) (err error) {
	switch key {
	case "path":
		extra.Name = value
	case "linkpath":
		extra.Target = value
	case "size":
		if extra.Size, err = strconv.ParseInt(value, 10, 64); err != nil || extra.Size < 0 || extra.Size > 1<<60 {
			return ErrFormat
		}
	case "mtime":
		whole, _, _ := strings.Cut(value, ".")
		if extra.Modified, err = strconv.ParseInt(whole, 10, 64); err != nil {
			return ErrFormat
		}
	}
	return nil
}

// Read reads the content of the entry.
func (r *Reader) Read(data []byte) (int, error) {
	if r.size == 0 {
		return 0, io.EOF
	}
	n, err := r.from.Read(data[:min(int64(len(data)), r.size)])
	r.size -= int64(n)
	r.left -= int64(n)
	if err == io.EOF && r.size > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
