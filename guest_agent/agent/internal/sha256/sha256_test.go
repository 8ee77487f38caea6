package sha256

import (
	theirs "crypto/sha256"
	"testing"
)

func TestTheSumIsTheStandardLibrarys(t *testing.T) {
	data := make([]byte, 1000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	for size := range data {
		h := New()
		h.Write(data[:size/3])
		h.Write(data[size/3 : size])
		if h.Sum() != theirs.Sum256(data[:size]) {
			t.Fatal("wrong for", size, "bytes")
		}
	}
}
