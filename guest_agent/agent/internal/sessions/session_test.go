package sessions

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"nexus/agent/internal/program"
)

func started(t *testing.T, table *Table, id, script string) *Session {
	t.Helper()
	about := About{ID: id, Argv: []string{"sh"}, Input: true, Keep: DefaultKeep}
	s, old, err := table.Start(about, func() (*program.Program, error) {
		return program.Start(program.Command{
			Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}, Dir: "/", Stdin: true,
		})
	})
	if err != nil || old {
		t.Fatal(old, err)
	}
	return s
}

// watched reads a session to its end.
func watched(t *testing.T, s *Session) string {
	t.Helper()
	view, _, err := s.View(0)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Leave()
	var text strings.Builder
	room := make([]byte, 4096)
	for {
		kind, n := view.Next(room)
		switch kind {
		case Output:
			text.Write(room[:n])
		case Window:
		default:
			return text.String()
		}
	}
}

// An agent that was not replaced after all goes on, and nothing that moved is lost.
func TestPausesLoseNothing(t *testing.T) {
	var table Table
	counting := started(t, &table, "count", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done")
	reading := started(t, &table, "read", "sleep 0.2; cat")
	view, _, _ := reading.View(0)
	if !view.Put([]byte(strings.Repeat("x", 60_000))) || !view.Put(nil) {
		t.Fatal("input is not taken")
	}
	for range 6 {
		time.Sleep(20 * time.Millisecond)
		table.Pause()
		packed, files := table.Pack()
		if len(packed) != 2 || len(files) < 2 {
			t.Error(packed, files)
		}
		table.Resume()
	}
	var want strings.Builder
	for i := range 3000 {
		want.WriteString(strconv.Itoa(i+1) + "\n")
	}
	if got := watched(t, counting); got != want.String() {
		t.Errorf("%d bytes instead of %d", len(got), want.Len())
	}
	if got := watched(t, reading); got != strings.Repeat("x", 60_000) {
		t.Error(len(got), "bytes of input came back")
	}
	if exit := counting.State().Exit; exit == nil || *exit != (Exit{}) {
		t.Error(exit)
	}
	if len(table.List()) != 2 || table.Forget("count") != nil || table.Forget("count") != ErrUnknown {
		t.Error("it is not forgotten")
	}
}

func TestWhatHasEndedMakesRoom(t *testing.T) {
	var table Table
	first := started(t, &table, "first", "true")
	watched(t, first)
	table.mutex.Lock()
	defer table.mutex.Unlock()
	if table.makeRoom(maxKept + 1) {
		t.Error("there is room for too much")
	}
	if table.all["first"] != nil {
		t.Error("what has ended is still kept")
	}
}

func TestWhatEndedLongAgoIsForgotten(t *testing.T) {
	var table Table
	s := started(t, &table, "old", "true")
	watched(t, s)
	s.mutex.Lock()
	s.ended -= keepEnded.Seconds() + 1
	s.mutex.Unlock()
	view, _, _ := s.View(0)
	if len(table.List()) != 1 {
		t.Error("somebody looks at it")
	}
	view.Leave()
	if len(table.List()) != 0 {
		t.Error("it is kept for ever")
	}
}

// A program that has ended while others hold its output is minded to its end, however often the
// agent was about to be replaced meanwhile.
func TestPausesDoNotDisturbTheEnd(t *testing.T) {
	var table Table
	var all []*Session
	for i := range 20 {
		all = append(all, started(t, &table, strconv.Itoa(i), "sleep 0.4 & echo "+strconv.Itoa(i)))
	}
	for range 40 {
		table.Pause()
		table.Resume()
		time.Sleep(5 * time.Millisecond)
	}
	for i, s := range all {
		if got := watched(t, s); got != strconv.Itoa(i)+"\n" {
			t.Errorf("%d: %q", i, got)
		}
	}
}

// What holds a program's output for ever does not keep the session from ending after a pause.
func TestAPauseKeepsTheEndOfTheOutput(t *testing.T) {
	var table Table
	s := started(t, &table, "held", "echo x; sleep 60 & echo $!")
	defer s.Signal(syscall.SIGKILL)
	for !over(s) {
		time.Sleep(5 * time.Millisecond)
	}
	table.Pause()
	table.Resume()
	began := time.Now()
	watched(t, s)
	if took := time.Since(began); took > 30*time.Second {
		t.Error("its end took", took)
	}
}

// over tells whether the session's program has ended.
func over(s *Session) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.over
}
