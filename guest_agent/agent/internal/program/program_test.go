package program

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUsersAreFoundAsTheFilesSay(t *testing.T) {
	passwd := write(t, "passwd", "root:x:0:0::/root:/bin/sh\n\nbad\notter:x:7:8::/home/otter:\nodd:x:no:-1::/:\n", 0o600)
	group := write(t, "group", "root:x:0:\nriver:x:77:fish,otter\nsea:x:78:otters\n", 0o600)
	for wanted, expected := range map[string]User{
		"otter":        {Name: "otter", Home: "/home/otter", UID: 7, GID: 8, Groups: []uint32{77}},
		"7":            {Name: "otter", Home: "/home/otter", UID: 7, GID: 8, Groups: []uint32{77}},
		"otter:sea":    {Name: "otter", Home: "/home/otter", UID: 7, GID: 78},
		"9:10":         {Home: "/", UID: 9, GID: 10},
		"9":            {Home: "/", UID: 9, GID: 9},
		"odd":          {Name: "odd", Home: "/", UID: 65534, GID: 65534},
		"fish":         {},
		"":             {},
		"-1":           {},
		"4294967295":   {},
		"otter:lake":   {},
		"otter:-1":     {},
		"root:otter:x": {},
	} {
		found, err := LookUp(wanted, passwd, group)
		if fails := expected.Home == ""; fails != (err != nil) {
			t.Errorf("%q: error %v", wanted, err)
		} else if !fails && (found.Name != expected.Name || found.Home != expected.Home || found.UID != expected.UID ||
			found.GID != expected.GID || !slices.Equal(found.Groups, expected.Groups)) {
			t.Errorf("%q is %+v", wanted, *found)
		}
	}
	if found, err := LookUp("0", "/no/passwd", "/no/group"); err != nil || found.UID != 0 {
		t.Error("numbers need no files", err)
	}
}

func TestProgramsAreLookedForInTheirOwnPath(t *testing.T) {
	program := write(t, "tool", "#!/bin/sh\n", 0o700)
	other := write(t, "tool", "not to be run", 0o600)
	path := "PATH=:" + filepath.Dir(other) + ":relative:" + filepath.Dir(program)
	if found, err := find("tool", []string{"A=b", path}); err != nil || found != program {
		t.Error(found, err)
	}
	if found, err := find("./tool", nil); err != nil || found != "./tool" {
		t.Error(found, err)
	}
	if _, err := find("tool", []string{"A=b"}); err == nil {
		t.Error("found without a PATH")
	}
}

// An ended program keeps its number until it is reaped, and gets no signals after that.
func TestAnEndedProgramIsKeptUntilItIsReaped(t *testing.T) {
	p, err := Start(Command{Argv: []string{"sh", "-c", "exit 3"}, Env: []string{"PATH=/bin:/usr/bin"}, Dir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Await()
	p.Await()
	if err := syscall.Kill(p.PID, 0); err != nil {
		t.Error("it is gone before it was reaped:", err)
	}
	if status := p.Reap(); status.ExitStatus() != 3 {
		t.Error(status)
	}
	if err := syscall.Kill(p.PID, 0); err != syscall.ESRCH {
		t.Error("it is still there:", err)
	}
	p.Signal(syscall.SIGKILL)
}

func TestAwaitLastsAsLongAsTheProgram(t *testing.T) {
	p, err := Start(Command{Argv: []string{"/bin/sh", "-c", "read line"}, Dir: "/", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ended := make(chan bool, 1)
	go func() {
		p.Await()
		ended <- p.hasEnded(syscall.WNOHANG)
	}()
	if p.hasEnded(syscall.WNOHANG) {
		t.Error("it ended without its input")
	}
	select {
	case <-ended:
		t.Error("Await did not wait")
	default:
	}
	p.Stdin.WriteString("\n")
	if !<-ended {
		t.Error("Await returned before the program had ended")
	}
	p.Reap()
}

func TestAFailedStartLeavesNoFilesOpen(t *testing.T) {
	before := openFiles(t)
	for range 5 {
		command := Command{Argv: []string{"/dev/null"}, Dir: "/", Stdin: true}
		if _, err := Start(command); err == nil || !strings.Contains(err.Error(), "/dev/null") {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(time.Minute); openFiles(t) != before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("files stay open")
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The runtime may have the fork done by a thread that is as slack as the agent lets its watchdog be.
func TestAProgramDoesNotInheritTheSlackOfTheThreadThatStartsIt(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, _, _ := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_GET_TIMERSLACK, 0, 0)
	for range 50 {
		syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_TIMERSLACK, 1_000_000, 0)
		p, err := Start(Command{Argv: []string{"/bin/cat", "/proc/self/timerslack_ns"}, Dir: "/"})
		if err != nil {
			t.Fatal(err)
		}
		slack, err := io.ReadAll(p.Stdout)
		if is := strings.TrimSpace(string(slack)); err != nil || is != strconv.Itoa(int(before)) {
			t.Errorf("it has a slack of %s, and ours was %d", is, before)
		}
		p.Await()
		p.Reap()
		p.Close()
	}
}
