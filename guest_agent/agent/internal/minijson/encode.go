package minijson

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Encode writes an object, its keys in order. Values may be Object, Array, []string, string,
// bool, int, int64, uint64, float64 or nil; any other type is a mistake of the program.
// Numbers that JSON cannot say (NaN, infinities) become null. Bytes that are no UTF-8 become the
// half of a surrogate pair that Decode makes the same bytes of.
func Encode(object Object) []byte {
	return appendValue(nil, object)
}

func appendValue(out []byte, value any) []byte {
	switch v := value.(type) {
	case nil:
		return append(out, "null"...)
	case Object:
		return appendObject(out, v)
	case Array:
		return appendArray(out, v)
	case []string:
		return appendArray(out, v)
	case string:
		return appendString(out, v)
	case bool:
		return strconv.AppendBool(out, v)
	case int:
		return strconv.AppendInt(out, int64(v), 10)
	case int64:
		return strconv.AppendInt(out, v, 10)
	case uint64:
		return strconv.AppendUint(out, v, 10)
	case float64:
		return appendFloat(out, v)
	}
	panic("minijson: a type that it does not know")
}

func appendFloat(out []byte, v float64) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(out, "null"...)
	}
	return strconv.AppendFloat(out, v, 'f', -1, 64)
}

func appendObject(out []byte, object Object) []byte {
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	out = append(out, '{')
	for i, key := range keys {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendString(out, key), ':')
		out = appendValue(out, object[key])
	}
	return append(out, '}')
}

func appendArray[T any](out []byte, array []T) []byte {
	out = append(out, '[')
	for i, value := range array {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendValue(out, value)
	}
	return append(out, ']')
}

func appendString(out []byte, text string) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD"):
			out = append(out, '\\', 'u', 'd', 'c', hex[text[i]>>4], hex[text[i]&15])
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r < ' ' || r == 0x7f:
			out = append(out, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			out = utf8.AppendRune(out, r)
		}
	}
	return append(out, '"')
}
