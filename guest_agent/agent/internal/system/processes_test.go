package system

import (
	"os"
	"slices"
	"testing"
)

func TestParseProcess(t *testing.T) {
	for stat, want := range map[string]process{
		"7 (sshd) S 1 7 7 0":    {7, 1, "sshd"},
		"7 (a) (b) 3) Z 12 7 7": {7, 12, "a) (b) 3"},
	} {
		if got, ok := parseProcess(7, stat); !ok || got != want {
			t.Errorf("%q: %+v", stat, got)
		}
	}
	for _, stat := range []string{"", "7 (sshd", "7 sshd) S 1", "7 (sshd) S", "7 (sshd) S one 7", ")("} {
		if got, ok := parseProcess(7, stat); ok {
			t.Errorf("%q became %+v", stat, got)
		}
	}
}

func TestDaemonsAreNotThoseThatServe(t *testing.T) {
	all := []process{
		{1, 0, "init"}, {20, 1, "sshd"}, {21, 20, "sshd"}, {22, 21, "sshd"}, {23, 22, "sh"},
		{30, 1, "supervise-daemo"}, {31, 30, "sshd"}, {40, 23, "sshd-session"},
	}
	if got := daemons(all, "sshd"); !slices.Equal(got, []int{20, 31}) {
		t.Error(got)
	}
}

func TestProcessesAreFound(t *testing.T) {
	for _, p := range processes() {
		if p.pid == os.Getpid() && p.parent == os.Getppid() && p.name != "" {
			return
		}
	}
	t.Error("this process is not among them")
}
