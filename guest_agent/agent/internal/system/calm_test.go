package system

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The watchdog becomes slack, and the process's first thread does not.
func TestCalm(t *testing.T) {
	Calm()
	directory, err := os.Open("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	defer directory.Close()
	threads, err := directory.Readdirnames(2)
	if err != nil || len(threads) < 2 {
		t.Fatal(threads, err)
	}
	for i, thread := range threads {
		slack, err := os.ReadFile("/proc/" + thread + "/timerslack_ns")
		if err != nil {
			t.Fatal(err)
		}
		if is := strings.TrimSpace(string(slack)) == strconv.Itoa(calmSlack); is != (i == 1) {
			t.Errorf("thread %d has a slack of %s", i, slack)
		}
	}
}

// The watchdog begins threads where others have been in the kernel for long; those are as slack as
// it is, and any of them may be told to start a program.
func TestExactlyOnAnyThread(t *testing.T) {
	Calm()
	slackThread := make(chan bool)
	deadline := time.Now().Add(time.Minute)
	for found := false; !found; {
		if time.Now().After(deadline) {
			t.Fatal("the watchdog has begun no thread")
		}
		go func() {
			is := threadSlack() == calmSlack
			if is {
				Exactly(func() {
					if now := threadSlack(); now != ordinarySlack {
						t.Errorf("a program would inherit a slack of %d", now)
					}
				})
			}
			slackThread <- is
			var pipe [2]int
			if syscall.Pipe(pipe[:]) == nil {
				defer syscall.Close(pipe[0])
				time.AfterFunc(time.Second, func() { syscall.Close(pipe[1]) })
				syscall.Read(pipe[0], make([]byte, 1)) // in the kernel, with a processor of Go's
			}
		}()
		found = <-slackThread
	}
}
