// Package system is what the agent reads from and does to the guest it runs in.
package system

import (
	"os"
	"path/filepath"
	"syscall"
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
		old, err := os.ReadFile(path)
		if err == nil && (string(old) == string(content) || overwritten(path, info, content)) {
			return nil
		}
	}
	if os.IsNotExist(err) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return put(path, content, mode)
	}
	temporary := path + ".nexus-new"
	if err := put(temporary, content, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func put(path string, content []byte, mode os.FileMode) error {
	if err := os.WriteFile(path, content, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// overwritten writes into the file that is there, if that is the agent's own under this name
// alone, and one block before and after: a file system does that at once, like a rename, and with
// far less code. Without KVM a guest that goes on from memory knows 20 ms sooner who it is.
func overwritten(path string, info os.FileInfo, content []byte) bool {
	const block = 4096
	stat, known := info.Sys().(*syscall.Stat_t)
	own := known && stat.Nlink == 1 && int(stat.Uid) == os.Geteuid()
	if !own || info.Size() == 0 || info.Size() > block || len(content) > block {
		return false
	}
	file, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		return false
	}
	return int64(len(content)) >= info.Size() || file.Truncate(int64(len(content))) == nil
}
