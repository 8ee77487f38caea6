package system

import (
	"os"
	"testing"
)

func TestNamesAreThoseOfTheKernel(t *testing.T) {
	for got, file := range map[string]string{
		Hostname():      "/proc/sys/kernel/hostname",
		KernelRelease(): "/proc/sys/kernel/osrelease",
	} {
		if want, _ := os.ReadFile(file); got == "" || got+"\n" != string(want) {
			t.Errorf("%s has %q, got %q", file, want, got)
		}
	}
}
