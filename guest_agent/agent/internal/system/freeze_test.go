package system

import (
	"slices"
	"testing"
)

func TestWritablePaths(t *testing.T) {
	const mountinfo = `21 1 254:0 / / rw,relatime - ext4 /dev/root rw
22 21 0:20 / /proc rw,nosuid - proc proc rw
23 21 0:5 / /dev rw shared:2 - devtmpfs devtmpfs rw
24 21 254:16 / /data rw,noatime shared:3 master:1 - ext4 /dev/vdb rw
25 21 254:32 / /media/cd ro - iso9660 /dev/vdc ro
26 21 254:48 / /once\040writable ro - xfs /dev/vdd rw,attr2
27 24 7:0 / /data/loop rw - ext4 /dev/loop0 rw
28 21 254:0 /srv /bound rw - ext4 /dev/root rw
29 21 0:40 / /pool rw - btrfs /dev/vde rw,subvolid=5
30 21 0:41 / /tmp rw - tmpfs tmpfs rw
31 21 0:42 / /merged rw - overlay overlay rw
32 21 254:64
`
	want := []string{"/pool", "/data/loop", "/once writable", "/data", "/"}
	if got := writablePaths(mountinfo); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := writablePaths(""); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestTheRootIsTheLastWhereverItIsListed(t *testing.T) {
	const mountinfo = `24 21 254:16 / /data rw - ext4 /dev/vdb rw
21 1 254:0 / / rw - ext4 /dev/vda rw
25 21 254:32 / /more rw - ext4 /dev/vdc rw
`
	if got := writablePaths(mountinfo); !slices.Equal(got, []string{"/more", "/data", "/"}) {
		t.Errorf("%q", got)
	}
}

func TestUnescape(t *testing.T) {
	for text, want := range map[string]string{
		`a\040b\134c`: `a b\c`, `\011\012`: "\t\n", `\`: `\`, `a\04`: `a\04`, `\999`: `\999`, "": "",
	} {
		if got := unescape(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
