package system

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFadtCanPowerOff(t *testing.T) {
	fadt := func(flags uint32, sleepControl uint64) []byte {
		table := make([]byte, 276)
		binary.LittleEndian.PutUint32(table[112:], flags)
		binary.LittleEndian.PutUint64(table[248:], sleepControl)
		return table
	}
	for name, c := range map[string]struct {
		table []byte
		want  bool
	}{
		"no table":                     {nil, false},
		"a short one":                  {make([]byte, 60), false},
		"a full machine":               {fadt(0, 0), true},
		"reduced, with a register":     {fadt(1<<20, 0xfea00000), true},
		"reduced, without":             {fadt(1<<20, 0), false},
		"reduced, of an older version": {fadt(1<<20, 1)[:244], false},
	} {
		if got := fadtCanPowerOff(c.table); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestParseInterface(t *testing.T) {
	i, err := ParseInterface("eth0", "10.0.2.15/24", "10.0.2.2")
	if err != nil || i.Address.String() != "10.0.2.15" || i.Mask.String() != "255.255.255.0" || i.Gateway.String() != "10.0.2.2" || i.prefix() != 24 {
		t.Errorf("%+v, %v", i, err)
	}
	if i, err := ParseInterface("eth0", "10.0.2.15/32", ""); err != nil || i.Mask.String() != "255.255.255.255" || i.Gateway != (IPv4{}) {
		t.Errorf("%+v, %v", i, err)
	}
	for _, c := range [][3]string{
		{"", "10.0.2.15/24", ""}, {"a-name-that-is-too-long", "10.0.2.15/24", ""}, {"eth0", "10.0.2.15", ""},
		{"eth0", "10.0.2.15/0", ""}, {"eth0", "10.0.2.15/33", ""}, {"eth0", "10.0.2/24", ""},
		{"eth0", "10.0.2.256/24", ""}, {"eth0", "10.0.2.015/24", ""}, {"eth0", "::1/64", ""},
		{"eth0", "10.0.2.15/24", "gateway"}, {"eth0", "10.0.2.-1/24", ""},
	} {
		if i, err := ParseInterface(c[0], c[1], c[2]); err == nil {
			t.Errorf("%v became %+v", c, i)
		}
	}
}

func TestWriteFile(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "etc", "nexus", "env")
	if err := WriteFile(path, []byte("A"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(path)
	if err := WriteFile(path, []byte("A"), 0o600); err != nil {
		t.Fatal(err)
	}
	after, _ := os.Stat(path)
	if !os.SameFile(before, after) {
		t.Error("the same content was written again")
	}
	if err := WriteFile(path, []byte("A"), 0o644); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode() != 0o644 {
		t.Error("the mode stayed", info.Mode())
	}
	elsewhere := filepath.Join(directory, "elsewhere")
	os.WriteFile(elsewhere, []byte("theirs"), 0o644)
	link := filepath.Join(directory, "link")
	os.Symlink(elsewhere, link)
	if err := WriteFile(link, []byte("ours"), 0o644); err != nil {
		t.Fatal(err)
	}
	if theirs, _ := os.ReadFile(elsewhere); string(theirs) != "theirs" {
		t.Error("it wrote through a link")
	}
	if left, _ := filepath.Glob(filepath.Join(directory, "*new*")); left != nil {
		t.Error("left behind:", left)
	}
}

func TestSmallFilesAreWrittenInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hostname")
	write := func(content string) {
		t.Helper()
		if err := WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if found, _ := os.ReadFile(path); string(found) != content {
			t.Fatalf("%q, not %q", found, content)
		}
	}
	write("a long name")
	before, _ := os.Stat(path)
	write("short")
	write("a longer name")
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("another file took its place")
	}
	other := path + "-too"
	if err := os.Link(path, other); err != nil {
		t.Fatal(err)
	}
	write("mine")
	if theirs, _ := os.ReadFile(other); string(theirs) != "a longer name" {
		t.Errorf("it wrote %q into a file that has another name", theirs)
	}
	write(strings.Repeat("long", 2000))
	before, _ = os.Stat(path)
	write("short")
	if after, _ := os.Stat(path); os.SameFile(before, after) {
		t.Error("a long file, of which a part may be lost, was written in place")
	}
}

func TestOwnFacts(t *testing.T) {
	memory := Memory()
	total, available := memory.Total, memory.Available
	diskTotal, diskFree := Disk("/")
	if Uptime() <= 0 || total == 0 || available == 0 || available > total || diskTotal == 0 || diskFree > diskTotal {
		t.Error(Uptime(), total, available, diskTotal, diskFree)
	}
	if len(BootID(Guest{})) != 36 || KernelRelease() == "" || Arch() == "" {
		t.Error(BootID(Guest{}), KernelRelease(), Arch())
	}
}
