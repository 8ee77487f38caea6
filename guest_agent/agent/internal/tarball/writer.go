// Package tarball reads and writes archives of tar, in constant memory. The standard library's
// archive/tar would make the agent a tenth larger.
package tarball

import (
	"errors"
	"io"
)

const block = 512

// The types of entries that this package knows.
const (
	File      = '0'
	HardLink  = '1'
	Link      = '2'
	Directory = '5'
)

const (
	gnuLongName = 'L'
	gnuLongLink = 'K'
	paxHeader   = 'x'
	paxGlobal   = 'g'
)

// Header is one entry. Target is what a link points to.
type Header struct {
	Name, Target string
	Type         byte
	Mode         uint32
	UID, GID     uint32
	Size         int64
	Modified     int64 // seconds since the epoch
}

// Writer writes an archive in GNU's format.
type Writer struct {
	to      io.Writer
	left    int64 // bytes of the entry that must still come
	padding int64
}

// NewWriter begins an archive.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to} }

var errSize = errors.New("an entry is not as long as its header says")

// Begin begins an entry; as many bytes as its Size says must be written.
func (w *Writer) Begin(h Header) error {
	if err := w.pad(); err != nil {
		return err
	}
	if err := w.long(gnuLongName, h.Name); err != nil {
		return err
	}
	if err := w.long(gnuLongLink, h.Target); err != nil {
		return err
	}
	return w.header(h)
}

// long says in an entry of its own what has no place in a header.
func (w *Writer) long(kind byte, text string) error {
	if len(text) <= 100 {
		return nil
	}
	err := w.header(Header{Name: "././@LongLink", Type: kind, Size: int64(len(text) + 1)})
	if err == nil {
		_, err = w.Write(append([]byte(text), 0))
	}
	if err == nil {
		err = w.pad()
	}
	return err
}

func (w *Writer) header(h Header) error {
	var b [block]byte
	copy(b[0:100], h.Name)
	octal(b[100:108], int64(h.Mode))
	octal(b[108:116], int64(h.UID))
	octal(b[116:124], int64(h.GID))
	octal(b[124:136], h.Size)
	octal(b[136:148], max(0, h.Modified))
	b[156] = h.Type
	copy(b[157:257], h.Target)
	copy(b[257:265], "ustar  \x00")
	octal(b[148:155], checksum(&b))
	b[155] = ' '
	w.left, w.padding = h.Size, -h.Size&(block-1)
	_, err := w.to.Write(b[:])
	return err
}

// octal fills a field with a number: digits and a zero, or all its bytes behind a mark.
func octal(field []byte, number int64) {
	last := len(field) - 1
	if number < 1<<(3*last) {
		for i := last - 1; i >= 0; i-- {
			field[i] = '0' + byte(number&7)
			number >>= 3
		}
		return
	}
	for i := last; i > 0; i-- {
		field[i] = byte(number)
		number >>= 8
	}
	field[0] = 0x80
}

// checksum is the sum of the header's bytes with spaces in the place of the sum itself.
func checksum(b *[block]byte) (sum int64) {
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	return sum
}

// Write adds content to the entry that has begun.
func (w *Writer) Write(data []byte) (int, error) {
	if int64(len(data)) > w.left {
		return 0, errSize
	}
	n, err := w.to.Write(data)
	w.left -= int64(n)
	return n, err
}

func (w *Writer) pad() error {
	if w.left != 0 {
		return errSize
	}
	var zeros [block]byte
	_, err := w.to.Write(zeros[:w.padding])
	w.padding = 0
	return err
}

// Close ends the archive.
func (w *Writer) Close() error {
	if err := w.pad(); err != nil {
		return err
	}
	var end [2 * block]byte
	_, err := w.to.Write(end[:])
	return err
}
