package tsc

import "testing"

// Two measurements agree to a thousandth, and are those of a processor.
func TestKHz(t *testing.T) {
	if !Supported {
		if KHz() != 0 {
			t.Error("a frequency of nothing")
		}
		return
	}
	first, second := float64(KHz()), float64(KHz())
	if first < 100_000 || first > 20_000_000 || second/first < 0.999 || second/first > 1.001 {
		t.Error(first, second)
	}
}
