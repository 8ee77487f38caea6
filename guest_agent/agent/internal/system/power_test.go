package system

import (
	"os"
	"path/filepath"
	"testing"
)

// What waits for a restart does not wait any more; what is to stand still (0) does so.
func TestPanicsAreShortened(t *testing.T) {
	name := filepath.Join(t.TempDir(), "panic")
	for was, becomes := range map[string]string{"120\n": "-1", "0\n": "0\n", "-1\n": "-1\n"} {
		if err := os.WriteFile(name, []byte(was), 0o600); err != nil {
			t.Fatal(err)
		}
		shortenPanic(name, "-1")
		if now, err := os.ReadFile(name); err != nil || string(now) != becomes {
			t.Errorf("%q has become %q, %v", was, now, err)
		}
	}
	shortenPanic(filepath.Join(t.TempDir(), "missing"), "-1")
}
