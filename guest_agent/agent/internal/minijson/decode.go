// Package minijson reads and writes the JSON of stream headers.
//
// The standard library's encoding/json would make the agent one megabyte larger,
// a third of its size, for headers that are small and flat.
package minijson

import (
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Object is a decoded JSON object. Its values are Object, Array, string, float64, bool or nil.
type Object map[string]any

// Array is a decoded JSON array.
type Array []any

// maxDepth bounds how deep values may lie in one another.
const maxDepth = 16

var errSyntax = errors.New("not valid JSON")

// Decode reads exactly one object; anything after it but white space is an error.
func Decode(text []byte) (Object, error) {
	if !utf8.Valid(text) {
		return nil, errSyntax
	}
	d := decoder{text: text}
	value, err := d.value(0)
	if err != nil {
		return nil, err
	}
	d.space()
	object, ok := value.(Object)
	if !ok || d.at != len(text) {
		return nil, errSyntax
	}
	return object, nil
}

type decoder struct {
	text []byte
	at   int
}

func (d *decoder) space() {
	for d.at < len(d.text) {
		switch d.text[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

// peek is the next byte that is not white space, or 0 at the end.
func (d *decoder) peek() byte {
	d.space()
	if d.at == len(d.text) {
		return 0
	}
	return d.text[d.at]
}

func (d *decoder) take(c byte) bool {
	if d.peek() != c {
		return false
	}
	d.at++
	return true
}

func (d *decoder) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("JSON is nested too deeply")
	}
	switch c := d.peek(); {
	case c == '{':
		return d.object(depth)
	case c == '[':
		return d.array(depth)
	case c == '"':
		return d.string()
	case c == '-' || (c >= '0' && c <= '9'):
		return d.number()
	default:
		return d.word()
	}
}

func (d *decoder) object(depth int) (any, error) {
	d.at++
	object := Object{}
	for !d.take('}') {
		if len(object) > 0 && !d.take(',') {
			return nil, errSyntax
		}
		if d.peek() != '"' {
			return nil, errSyntax
		}
		key, err := d.string()
		if err != nil {
			return nil, err
		}
		if _, twice := object[key]; twice || !d.take(':') {
			return nil, errSyntax
		}
		if object[key], err = d.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return object, nil
}

func (d *decoder) array(depth int) (any, error) {
	d.at++
	array := Array{}
	for !d.take(']') {
		if len(array) > 0 && !d.take(',') {
			return nil, errSyntax
		}
		value, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		array = append(array, value)
	}
	return array, nil
}

func (d *decoder) word() (any, error) {
	for word, value := range map[string]any{"true": true, "false": false, "null": nil} {
		if end := d.at + len(word); end <= len(d.text) && string(d.text[d.at:end]) == word {
			d.at = end
			return value, nil
		}
	}
	return nil, errSyntax
}

func (d *decoder) digits() int {
	start := d.at
	for d.at < len(d.text) && d.text[d.at] >= '0' && d.text[d.at] <= '9' {
		d.at++
	}
	return d.at - start
}

// next steps over one of the bytes in set, if it comes next.
func (d *decoder) next(set string) bool {
	for i := range len(set) {
		if d.at < len(d.text) && d.text[d.at] == set[i] {
			d.at++
			return true
		}
	}
	return false
}

func (d *decoder) number() (any, error) {
	start := d.at
	d.next("-")
	if !d.next("0") && d.digits() == 0 {
		return nil, errSyntax
	}
	if d.next(".") && d.digits() == 0 {
		return nil, errSyntax
	}
	if d.next("eE") {
		d.next("+-")
		if d.digits() == 0 {
			return nil, errSyntax
		}
	}
	number, err := strconv.ParseFloat(string(d.text[start:d.at]), 64)
	if err != nil {
		return nil, errors.New("a JSON number is out of range")
	}
	return number, nil
}

func (d *decoder) string() (string, error) {
	d.at++
	var out []byte
	for d.at < len(d.text) {
		c := d.text[d.at]
		d.at++
		switch {
		case c == '"':
			return string(out), nil
		case c < ' ':
			return "", errSyntax
		case c != '\\':
			out = append(out, c)
		default:
			r, ok := d.escape()
			if !ok {
				return "", errSyntax
			}
			if isByte(r) {
				out = append(out, byte(r))
			} else {
				out = utf8.AppendRune(out, r)
			}
		}
	}
	return "", errSyntax
}

func (d *decoder) escape() (rune, bool) {
	if d.at == len(d.text) {
		return 0, false
	}
	c := d.text[d.at]
	d.at++
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
		return d.unicode()
	}
	return 0, false
}

// isByte tells whether r is half a surrogate pair that stands for a byte which is no UTF-8, as in
// the names that Python has for files: U+DC80 for 80, to U+DCFF for FF.
func isByte(r rune) bool { return r >= 0xdc80 && r <= 0xdcff }

// unicode reads the four digits of \uXXXX and, of a surrogate pair, both halves. Any other half
// of a pair but a byte's is U+FFFD, and what follows it counts by itself.
func (d *decoder) unicode() (rune, bool) {
	first, ok := d.hex4()
	if !ok || !utf16.IsSurrogate(first) || isByte(first) {
		return first, ok
	}
	if d.at+2 > len(d.text) || string(d.text[d.at:d.at+2]) != `\u` {
		return utf8.RuneError, true
	}
	after := d.at
	d.at += 2
	second, ok := d.hex4()
	pair := utf16.DecodeRune(first, second)
	if pair == utf8.RuneError {
		d.at = after
	}
	return pair, ok
}

func (d *decoder) hex4() (rune, bool) {
	if d.at+4 > len(d.text) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(d.text[d.at:d.at+4]), 16, 16)
	d.at += 4
	return rune(n), err == nil
}
