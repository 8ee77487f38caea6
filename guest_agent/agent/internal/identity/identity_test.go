package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nexus/agent/internal/system"
)

const (
	one     = "aaaaaaaaaaaac"
	two     = "aebagbafaydqq"
	imageID = "0123456789abcdef0123456789abcdef"
)

// keygen stands in for ssh-keygen: its key is the type that was asked for.
const keygen = `#!/bin/sh
[ "$1 $2 $4 $5 $6 $7 $8" = "-q -t -N  -C  -f" ] || { echo "strange arguments: $*"; exit 9; }
[ -e "$9" ] && { echo "$9 already exists."; exit 1; }
[ -e "$HOME/full" ] && { echo "No space left on device"; exit 255; }
echo "a new $3 key" >"$9"
echo "public $3" >"$9.pub"
`

// guest is a guest in a directory; program is its ssh-keygen, "" for none.
func guest(t *testing.T, program string) system.Sandbox {
	t.Helper()
	s := system.Sandbox{Directory: t.TempDir()}
	t.Setenv("HOME", s.Directory)
	t.Setenv("PATH", s.Path("/bin")+":/bin:/usr/bin")
	if program == "" {
		t.Setenv("PATH", s.Path("/bin"))
	} else {
		put(t, s, "/bin/ssh-keygen", program, 0o755)
	}
	os.MkdirAll(s.Path("/etc"), 0o755)
	return s
}

func put(t *testing.T, s system.Sandbox, name, content string, mode os.FileMode) {
	t.Helper()
	os.MkdirAll(filepath.Dir(s.Path(name)), 0o755)
	if err := os.WriteFile(s.Path(name), []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func get(s system.Sandbox, name string) string {
	content, err := os.ReadFile(s.Path(name))
	if err != nil {
		return "none"
	}
	return string(content)
}

func TestState(t *testing.T) {
	s := guest(t, keygen)
	for _, id := range []string{"", "a b", "a/b", "a\n", strings.Repeat("a", 65)} {
		if got := State(s, id); got != None {
			t.Errorf("%q: %s", id, got)
		}
		if Renew(s, id) == nil {
			t.Errorf("%q became an identity", id)
		}
	}
	if got := State(s, one); got != New {
		t.Error(got)
	}
	if err := Renew(s, one); err != nil {
		t.Fatal(err)
	}
	if State(s, one) != Kept || State(s, two) != New || get(s, record) != one+"\n" {
		t.Error(State(s, one), State(s, two), get(s, record))
	}
	if got := State(system.Sandbox{Directory: "/proc"}, one); got != None {
		t.Error("a place that cannot be written to:", got)
	}
}

func TestRenewReplacesWhatThereIs(t *testing.T) {
	s := guest(t, keygen)
	put(t, s, "/etc/machine-id", imageID+"\n", 0o444)
	put(t, s, "/var/lib/dbus/machine-id", imageID+"\n", 0o644)
	put(t, s, "/etc/ssh/ssh_host_ed25519_key", "the image's", 0o640)
	put(t, s, "/etc/ssh/ssh_host_rsa_key", "the image's", 0o600)
	if err := Renew(s, one); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(get(s, "/etc/machine-id"))
	if len(id) != 32 || id == imageID || id[12] != '4' || get(s, "/var/lib/dbus/machine-id") != id+"\n" {
		t.Errorf("machine ids: %q %q", id, get(s, "/var/lib/dbus/machine-id"))
	}
	for name, want := range map[string]string{
		"/etc/ssh/ssh_host_ed25519_key":     "a new ed25519 key\n",
		"/etc/ssh/ssh_host_ed25519_key.pub": "public ed25519\n",
		"/etc/ssh/ssh_host_rsa_key":         "a new rsa key\n",
		"/etc/ssh/ssh_host_ecdsa_key":       "none",
	} {
		if got := get(s, name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, want := range map[string]os.FileMode{"/etc/machine-id": 0o444, "/etc/ssh/ssh_host_ed25519_key": 0o640} {
		if info, err := os.Stat(s.Path(name)); err != nil || info.Mode() != want {
			t.Error(name, info, err)
		}
	}
	if left, _ := filepath.Glob(s.Path("/etc/*/*nexus-new*")); left != nil {
		t.Error("left behind:", left)
	}
}

func TestRenewMakesNothingThatWasNotThere(t *testing.T) {
	for _, content := range []string{"none", "", "uninitialized\n", "\n"} {
		s := guest(t, keygen)
		if content != "none" {
			put(t, s, "/etc/machine-id", content, 0o444)
		}
		if err := Renew(s, one); err != nil {
			t.Fatal(err)
		}
		if get(s, "/etc/machine-id") != content || get(s, "/var/lib/dbus/machine-id") != "none" {
			t.Errorf("%q became %q", content, get(s, "/etc/machine-id"))
		}
		if _, err := os.Stat(s.Path("/etc/ssh")); err == nil {
			t.Error("a directory for keys")
		}
	}
}

func TestRenewFollowsNoLinkOfAMachineID(t *testing.T) {
	s := guest(t, keygen)
	put(t, s, "/run/machine-id", imageID, 0o644)
	put(t, s, "/var/lib/dbus/machine-id", imageID, 0o644)
	os.Symlink(s.Path("/run/machine-id"), s.Path("/etc/machine-id"))
	if err := Renew(s, one); err != nil {
		t.Fatal(err)
	}
	if get(s, "/run/machine-id") != imageID || get(s, "/var/lib/dbus/machine-id") == imageID {
		t.Error(get(s, "/run/machine-id"), get(s, "/var/lib/dbus/machine-id"))
	}
}

func TestRenewBeginsAnewAfterAnError(t *testing.T) {
	s := guest(t, keygen)
	put(t, s, "/full", "", 0o644)
	put(t, s, "/etc/machine-id", imageID, 0o444)
	put(t, s, "/etc/ssh/ssh_host_rsa_key", "the image's", 0o600)
	if err := Renew(s, one); err == nil || !strings.Contains(err.Error(), "No space left") {
		t.Error(err)
	}
	if State(s, one) != New || get(s, "/etc/machine-id") != imageID {
		t.Error(State(s, one), get(s, "/etc/machine-id"))
	}
	os.Remove(s.Path("/full"))
	put(t, s, "/etc/ssh/ssh_host_rsa_key.nexus-new", "half a k", 0o600) // of a boot that came to an end
	if err := Renew(s, one); err != nil || State(s, one) != Kept {
		t.Error(err, State(s, one))
	}
	if got := get(s, "/etc/ssh/ssh_host_rsa_key"); got != "a new rsa key\n" {
		t.Error(got)
	}
}

func TestWithoutKeygenTheKeysStay(t *testing.T) {
	s := guest(t, "")
	put(t, s, "/etc/ssh/ssh_host_rsa_key", "the image's", 0o600)
	if err := Renew(s, one); err != nil || State(s, one) != Kept {
		t.Error(err, State(s, one))
	}
	if got := get(s, "/etc/ssh/ssh_host_rsa_key"); got != "the image's" {
		t.Error(got)
	}
}
