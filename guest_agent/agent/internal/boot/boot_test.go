package boot

import (
	"syscall"
	"testing"
)

func TestMountOptions(t *testing.T) {
	for _, c := range []struct {
		options  string
		readOnly bool
		flags    uintptr
		data     string
	}{
		{"", false, 0, ""},
		{"", true, syscall.MS_RDONLY, ""},
		{"rw", true, 0, ""},
		{"rw,noatime", false, syscall.MS_NOATIME, ""},
		{"ro,data=ordered,,errors=remount-ro", false, syscall.MS_RDONLY, "data=ordered,errors=remount-ro"},
	} {
		if flags, data := mountOptions(c.options, c.readOnly); flags != c.flags || data != c.data {
			t.Errorf("%q: %#x %q", c.options, flags, data)
		}
	}
}
