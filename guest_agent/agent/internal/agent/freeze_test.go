package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nexus/agent/internal/system"
)

const mountinfo = `21 1 254:0 / / rw - ext4 /dev/vda rw
24 21 254:16 / /data rw - ext4 /dev/vdb rw
`

func sandboxed(t *testing.T, mounts string) (*Agent, func() []string) {
	t.Helper()
	s := system.Sandbox{Directory: t.TempDir()}
	os.MkdirAll(s.Path("/proc/self"), 0o755)
	if err := os.WriteFile(s.Path("/proc/self/mountinfo"), []byte(mounts), 0o644); err != nil {
		t.Fatal(err)
	}
	return &Agent{System: s}, func() []string {
		calls, _ := os.ReadFile(filepath.Join(s.Directory, "calls"))
		return strings.Split(strings.TrimSpace(string(calls)), "\n")
	}
}

// begin is a frost of the agent's, as freeze begins it.
func begin(a *Agent) *frost {
	f := newFrost()
	a.frost.Store(f)
	return f
}

func TestFrostEndsInTheOtherOrderAndOnce(t *testing.T) {
	a, calls := sandboxed(t, mountinfo)
	f := begin(a)
	if err := f.settle(f.spread(a.System)); err != nil {
		t.Fatal(err)
	}
	if got := f.paths(); !slices.Equal(got, []string{"/data", "/"}) {
		t.Errorf("frozen: %q", got)
	}
	if got := a.endFrost(); !slices.Equal(got, []string{"/", "/data"}) {
		t.Errorf("thawed: %q", got)
	}
	if got := a.end(f); len(got) != 0 || len(a.endFrost()) != 0 || a.frost.Load() != nil {
		t.Errorf("thawed twice: %q", got)
	}
	want := []string{"sync", "freeze /data", "freeze /", "thaw /", "thaw /data"}
	if got := calls(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestFrostThatIsOverKeepsNothingFrozen(t *testing.T) {
	a, calls := sandboxed(t, mountinfo)
	f := begin(a)
	a.endFrost()
	if a.frost.Load() != f {
		t.Error("another frost may begin while this one spreads")
	}
	if err := f.settle(f.spread(a.System)); !errors.Is(err, errTooLate) {
		t.Error(err)
	}
	if got := calls(); !slices.Equal(got, []string{"sync", "freeze /data", "thaw /data"}) {
		t.Errorf("%q", got)
	}
	if a.end(f); a.frost.Load() != nil {
		t.Error("no other frost may begin")
	}
}

func TestFrostThatEndsAtTheLastMoment(t *testing.T) {
	a, _ := sandboxed(t, mountinfo)
	f := begin(a)
	if err := f.spread(a.System); err != nil {
		t.Fatal(err)
	}
	a.endFrost()
	if err := f.settle(nil); !errors.Is(err, errTooLate) {
		t.Error(err)
	}
}

func TestAnOldFrostDoesNotEndANewOne(t *testing.T) {
	a, _ := sandboxed(t, mountinfo)
	older := begin(a)
	newer := begin(a)
	a.end(older)
	if a.frost.Load() != newer || newer.ended {
		t.Error("the newer frost is over")
	}
}

func TestNothingToFreeze(t *testing.T) {
	a, _ := sandboxed(t, "21 1 0:2 / / rw - rootfs rootfs rw\n")
	f := begin(a)
	if err := f.settle(f.spread(a.System)); !errors.Is(err, errNothing) {
		t.Error(err)
	}
}
