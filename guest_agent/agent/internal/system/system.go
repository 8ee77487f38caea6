// Package system is what the agent reads from and does to the guest it runs in.
package system

import (
	"os"
	"path/filepath"
	"time"
)

// System is the guest. Guest is the real one, Sandbox the one of the tests.
type System interface {
	// Path is where a file of the guest lies.
	Path(absolute string) string
	SetHostname(name string) error
	SetTime(now time.Time) error
	AddEntropy(entropy []byte) error
	SetUpInterface(Interface) error
	// FileSystems are those on block devices that can be written to, in the order to freeze
	// them. The caller must CloseAll of them.
	FileSystems() ([]*FileSystem, error)
	// Reload has the daemons of this name read their settings again.
	Reload(daemon string)
	// Sync writes all disks out.
	Sync()
	// LoadModule puts a kernel module into the kernel; one that is there already is fine.
	LoadModule(name string, image []byte) error
	// Shutdown ends the guest. It returns only if that failed.
	Shutdown(mode Mode, hasInit bool, grace time.Duration) error
}

// Guest is the virtual machine that this process runs in.
type Guest struct{}

// Path is the file itself.
func (Guest) Path(absolute string) string { return absolute }

// Sandbox is a directory that stands for the guest: files are read and written below it, and
// what would change the kernel's state is written down in the file "calls" instead.
type Sandbox struct{ Directory string }

// Path is the file below the sandbox's directory.
func (s Sandbox) Path(absolute string) string { return filepath.Join(s.Directory, absolute) }

func (s Sandbox) record(line string) error {
	file, err := os.OpenFile(s.Path("calls"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteString(line + "\n")
	return err
}

// WriteFile replaces a file at once, and only if its content changes. Links in its place are
// replaced too: the file of the guest's owner that a link points to stays as it is.
func WriteFile(path string, content []byte, mode os.FileMode) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode() == mode {
		if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := path + ".nexus-new"
	if err := os.WriteFile(temporary, content, mode); err != nil {
		return err
	}
	if err := os.Chmod(temporary, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
