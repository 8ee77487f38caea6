package minijson

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	got := Encode(Object{
		"z": nil, "a": "tab\t\"quote\\\x7f\xff", "n": 1.5, "whole": 1800000000.0, "i": -3,
		"u": uint64(math.MaxUint64), "l": int64(7), "yes": true, "nan": math.NaN(),
		"list": Array{Object{}, Array{}, "ä"}, "texts": []string{"x"},
	})
	want := `{"a":"tab\u0009\"quote\\\u007f\udcff","i":-3,"l":7,"list":[{},[],"ä"],"n":1.5,` +
		`"nan":null,"texts":["x"],"u":18446744073709551615,"whole":1800000000,"yes":true,"z":null}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDecode(t *testing.T) {
	got, err := Decode([]byte(" {\"s\": \"a\\u00e4\\ud83d\\ude00\\n\\/\", \"n\": -1.5e3,\n\"l\":[1,true,null,{}], \"e\":{}} "))
	want := Object{"s": "aä😀\n/", "n": -1500.0, "l": Array{1.0, true, nil, Object{}}, "e": Object{}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, %v", got, err)
	}
}

func TestBytesThatAreNoTextComeThrough(t *testing.T) {
	for _, text := range []string{"\x80", "\xff\xfe", "a\xef\xbf", "\xef\xbf\xbdx", "ä\xe4", "\xed\xb2\x80"} {
		got, err := Decode(Encode(Object{"a": text}))
		if err != nil || got["a"] != text {
			t.Errorf("%q became %q, %v", text, got["a"], err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, text := range []string{
		"", " ", "[]", "3", "null", `"x"`, "{", "}", `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{a:1}`,
		`{"a":1}x`, `{"a":1}{}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`, `{"a":1e}`, `{"a":1e999}`,
		`{"a":nul}`, `{"a":NaN}`, `{"a":"x}`, `{"a":"\x"}`, `{"a":"\u12"}`, "{\"a\":\"\n\"}", "{\"a\":\"\xff\"}",
		`{"a":1,"a":2}`, `{"a":[1,]}`, `{"a":[1 2]}`, `{"a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + "}",
	} {
		if got, err := Decode([]byte(text)); err == nil {
			t.Errorf("%.40q was read as %v", text, got)
		}
	}
}

func TestFields(t *testing.T) {
	object := Object{"s": "x", "n": 1.0, "o": Object{"a": "b"}, "l": Array{"a", "b"}, "mixed": Array{"a", 1.0}, "null": nil}
	if text, err := object.Text("s"); text != "x" || err != nil {
		t.Error(text, err)
	}
	if text, err := object.Text("null"); text != "" || err != nil {
		t.Error(text, err)
	}
	if number, err := object.Number("missing"); number != 0 || err != nil {
		t.Error(number, err)
	}
	if texts, err := object.Texts("l"); len(texts) != 2 || err != nil {
		t.Error(texts, err)
	}
	if _, err := object.Texts("mixed"); err == nil {
		t.Error("a number among texts was let through")
	}
	if _, err := object.Object("s"); err == nil {
		t.Error("a text was taken for an object")
	}
	if _, err := object.Number("s"); err == nil {
		t.Error("a text was taken for a number")
	}
}

// FuzzDecode holds the decoder against the standard library's: what it reads, that one reads to
// the same values, and encoding it again changes nothing.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"op":"hello","n":[1,-2.5e-3,true,null],"o":{"":"\ud83d\ude00\u0000"}}`, `{"a":"\ud800"}`, `{"a":"\ud800\u0041"}`, `{"a":"\udc80\udcff"}`,
		"{", `{"a":"`, `{"a":-}`, `{"a":{"a":{"a":[[[[]]]]}}}`, "{}\x00", `{"a":1E+2}`, `{"a":-0}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		object, err := Decode(text)
		if err != nil {
			return
		}
		var theirs map[string]any
		if err := json.Unmarshal(text, &theirs); err != nil {
			t.Fatalf("%q is no JSON: %v", text, err)
		}
		again, err := Decode(Encode(object))
		if err != nil || !reflect.DeepEqual(again, object) {
			t.Fatalf("%q became %q: %v", text, Encode(object), err)
		}
		if strings.Contains(strings.ToLower(string(text)), `\udc`) {
			return // what is a byte to us is U+FFFD to them
		}
		if !reflect.DeepEqual(plain(object), any(theirs)) {
			t.Fatalf("%q was read as %v, not %v", text, object, theirs)
		}
	})
}

// plain is a value in the types of encoding/json.
func plain(value any) any {
	switch v := value.(type) {
	case Object:
		object := map[string]any{}
		for key, inner := range v {
			object[key] = plain(inner)
		}
		return object
	case Array:
		array := make([]any, len(v))
		for i, inner := range v {
			array[i] = plain(inner)
		}
		return array
	}
	return value
}
