package system

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestDiskUsers(t *testing.T) {
	s := Sandbox{t.TempDir()}
	for path, content := range map[string]string{
		"/sys/block/sda/dev":               "8:0\n",
		"/sys/block/sda/sda1/dev":          "8:1\n",
		"/sys/block/sda/sda1/holders/dm-0": "",
		"/proc/self/mountinfo":             "30 21 8:1 / /da\\040ta rw - ext4 /dev/sda1 rw\n31 21 8:16 / /b rw - ext4 /dev/sdb rw\n",
	} {
		os.MkdirAll(filepath.Dir(s.Path(path)), 0o755)
		os.WriteFile(s.Path(path), []byte(content), 0o600)
	}
	if got := diskUsers(s, "sda"); !slices.Equal(got, []string{"/da ta", "/dev/dm-0"}) {
		t.Error(got)
	}
	if got := diskUsers(s, "sdc"); len(got) != 1 {
		t.Error(got, "something holds it all the same")
	}
}

func TestLookForDisks(t *testing.T) {
	s := Sandbox{t.TempDir()}
	for _, host := range []string{"host0", "host1"} {
		os.MkdirAll(s.Path("/sys/class/scsi_host/"+host), 0o755)
		os.WriteFile(s.Path("/sys/class/scsi_host/"+host+"/scan"), nil, 0o600)
	}
	LookForDisks(s)
	for _, host := range []string{"host0", "host1"} {
		if got, _ := os.ReadFile(s.Path("/sys/class/scsi_host/" + host + "/scan")); string(got) != "0 15 0" {
			t.Errorf("%s: %q", host, got)
		}
	}
}
