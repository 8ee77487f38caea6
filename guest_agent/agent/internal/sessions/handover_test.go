package sessions

import (
	"testing"

	"nexus/agent/internal/minijson"
)

// A handover comes from another agent of the guest's, but no text may bring this one down.
func FuzzUnpack(f *testing.F) {
	for _, seed := range []string{
		`{"id":"a","exit":[0,0,false],"keep":4096,"runs":[5,1],"size":5}`,
		`{"id":"a","exit":[1],"keep":-1,"argv":[1]}`, `{"runs":[1],"exit":["",null,1],"first":1e300}`, `{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		object, err := minijson.Decode(text)
		if err != nil {
			return
		}
		for _, name := range []string{"output", "stdin", "stdout", "stderr"} {
			delete(object, name) // the test's own files
		}
		if s, err := unpack(object); err == nil && s.exit == nil {
			t.Fatal("a running program without output")
		}
	})
}
