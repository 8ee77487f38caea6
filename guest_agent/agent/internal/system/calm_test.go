package system

import (
	"os"
	"strings"
	"testing"
)

// Only the watchdog becomes slack: what the other threads start inherits theirs.
func TestCalm(t *testing.T) {
	Calm()
	directory, err := os.Open("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	defer directory.Close()
	threads, err := directory.Readdirnames(-1)
	if err != nil || len(threads) < 2 {
		t.Fatal(threads, err)
	}
	for i, thread := range threads {
		slack, err := os.ReadFile("/proc/" + thread + "/timerslack_ns")
		if err != nil {
			continue // the thread is gone
		}
		if is := strings.TrimSpace(string(slack)) == calmSlack; is != (i == 1) {
			t.Errorf("thread %d has a slack of %s", i, slack)
		}
	}
}
