package system

import (
	"os"
	"testing"
)

func TestTheHostsBootIDComesBeforeTheKernels(t *testing.T) {
	const uuid = "01234567-89ab-4def-8123-456789abcdef"
	s := Sandbox{t.TempDir()}
	kernels := BootID(s)
	if kernels == "" || kernels != BootID(Guest{}) {
		t.Error(kernels)
	}
	for _, id := range []string{"", "a", uuid[1:] + "g", uuid + "0", "0123456789ab-4def-8123-456789abcdef-"} {
		if SetBootID(s, id) == nil {
			t.Errorf("%q became a boot's", id)
		}
	}
	if err := SetBootID(s, uuid); err != nil || BootID(s) != uuid {
		t.Error(err, BootID(s))
	}
	os.WriteFile(s.Path(BootIDFile), []byte("what somebody wrote"), 0o644)
	if got := BootID(s); got != kernels {
		t.Error(got)
	}
}

func TestParseMAC(t *testing.T) {
	if m, err := ParseMAC("52:54:00:ab:CD:01"); err != nil || m.String() != "52:54:00:ab:cd:01" {
		t.Error(m, err)
	}
	for _, text := range []string{
		"", "52:54:00:ab:cd", "52:54:00:ab:cd:01:02", "52:54:00:ab:cd:1", "52:54:00:ab:cd:0g",
		"01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "52-54-00-ab-cd-01", "+1:54:00:ab:cd:01",
	} {
		if m, err := ParseMAC(text); err == nil {
			t.Errorf("%q became %v", text, m)
		}
	}
}
