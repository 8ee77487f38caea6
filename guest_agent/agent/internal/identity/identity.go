// Package identity gives a guest an identity of its own: a copy of a drive must not pass for the
// guest that the drive was copied from.
package identity

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"nexus/agent/internal/system"
)

// KernelWord is how the host names the guest on the kernel's command line.
const KernelWord = "nexus.identity"

// What State finds.
const (
	New  = "new"  // it has another guest's identity, or an image's: Become is due
	Kept = "kept" // it is the one that the host means
	None = "none" // the host names none, or nothing can be written
)

const (
	directory = "/etc/nexus"
	record    = directory + "/identity"
	maxID     = 64
)

// machineIDs are systemd's own and D-Bus's, from which systemd takes it.
var machineIDs = []string{"/etc/machine-id", "/var/lib/dbus/machine-id"}

// State tells whether the guest is the one with this id.
func State(s system.System, id string) string {
	const writable = 2 // W_OK
	if !valid(id) || syscall.Access(s.Path("/etc"), writable) != nil {
		return None
	}
	if found, err := os.ReadFile(s.Path(record)); err == nil && strings.TrimSpace(string(found)) == id {
		return Kept
	}
	return New
}

// Renew gives the guest a machine id and SSH host keys that no other has, in the place of those
// that it has: Become and FinishKeys in one, for who has the time.
func Renew(s system.System, id string) error {
	if _, err := Become(s, id); err != nil {
		return err
	}
	defer s.Sync()
	return FinishKeys(s)
}

func valid(id string) bool {
	for _, r := range id {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-') {
			return false
		}
	}
	return id != "" && len(id) <= maxID
}

// renewMachineIDs leaves alone what is no id: systemd makes one where the file is empty or says
// "uninitialized", and a link leads to the other file, or to one that is made at each boot.
func renewMachineIDs(s system.System) error {
	fresh, err := machineID()
	if err != nil {
		return err
	}
	for _, name := range machineIDs {
		path := s.Path(name)
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		old, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(strings.TrimSpace(string(old))) != len(fresh) {
			continue
		}
		err = system.WriteFile(path, []byte(fresh+"\n"), info.Mode().Perm())
		if errors.Is(err, syscall.EBUSY) { // systemd has mounted one over it, to keep it later
			err = os.WriteFile(path, []byte(fresh+"\n"), info.Mode().Perm())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// machineID is a random UUID in the form of machine-id(5).
func machineID() (string, error) {
	var uuid [16]byte
	if err := system.Random(uuid[:]); err != nil {
		return "", err
	}
	uuid[6] = uuid[6]&0x0f | 0x40
	uuid[8] = uuid[8]&0x3f | 0x80
	return system.Hex(uuid[:]), nil
}
