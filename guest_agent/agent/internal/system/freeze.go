package system

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	ioctlFreeze = 0xc0045877 // FIFREEZE
	ioctlThaw   = 0xc0045878 // FITHAW
)

// FileSystem is a writable file system on a block device, held open at its mount point.
type FileSystem struct {
	Path    string
	freezer freezer
}

type freezer interface {
	freeze() error
	thaw() error
	close() error
}

// Freeze writes the file system out and lets every later write to it wait. It is false for one
// that cannot be frozen, or that somebody else has frozen.
func (f *FileSystem) Freeze() (frozen bool, err error) {
	err = f.freezer.freeze()
	if err == syscall.EOPNOTSUPP || err == syscall.EBUSY {
		return false, nil
	}
	return err == nil, err
}

// Thaw lets the writes go on; it is false for a file system that is not frozen.
func (f *FileSystem) Thaw() bool { return f.freezer.thaw() == nil }

// CloseAll gives the mount points back.
func CloseAll(all []*FileSystem) {
	for _, f := range all {
		f.freezer.close()
	}
}

// ThawAll thaws every file system that is frozen.
func ThawAll(s System) {
	all, _ := s.FileSystems()
	slices.Reverse(all)
	for _, f := range all {
		f.Thaw()
	}
	CloseAll(all)
}

// FileSystems opens what Freeze is for, in its order: a file system in a file of another one
// comes before that, and the root is the last.
func (Guest) FileSystems() ([]*FileSystem, error) {
	var found []*FileSystem
	for _, path := range writablePaths(readRaw("/proc/self/mountinfo")) {
		// A mount point may be any kind of file; none may keep the agent waiting.
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		if err != nil {
			CloseAll(found)
			return nil, errors.New(path + ": " + err.Error())
		}
		found = append(found, &FileSystem{path, mountPoint(fd)})
	}
	return found, nil
}

// Sync writes all disks out.
func (Guest) Sync() { syscall.Sync() }

// mountPoint is an open file of the file system.
type mountPoint int

func (m mountPoint) freeze() error { return ioctl(int(m), ioctlFreeze, nil) }
func (m mountPoint) thaw() error   { return ioctl(int(m), ioctlThaw, nil) }
func (m mountPoint) close() error  { return syscall.Close(int(m)) }

// FileSystems are those of the sandbox's own list of mounts.
func (s Sandbox) FileSystems() ([]*FileSystem, error) {
	var found []*FileSystem
	for _, path := range writablePaths(readRaw(s.Path("/proc/self/mountinfo"))) {
		found = append(found, &FileSystem{path, written{s, path}})
	}
	return found, nil
}

// Sync is written down.
func (s Sandbox) Sync() { s.record("sync") }

// written is written down.
type written struct {
	sandbox Sandbox
	path    string
}

func (w written) freeze() error { return w.sandbox.record("freeze " + w.path) }
func (w written) thaw() error   { return w.sandbox.record("thaw " + w.path) }
func (w written) close() error  { return nil }

// writablePaths are the mount points of the file systems on block devices that are not read-only,
// one of each, the last mounted first and the root last. mountinfo is the kernel's list, as in
// proc_pid_mountinfo(5).
func writablePaths(mountinfo string) []string {
	var paths []string
	seen := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		mount, super, _ := strings.Cut(line, " - ")
		about, words := strings.Fields(mount), strings.Fields(super)
		if len(about) < 6 || len(words) < 3 {
			continue
		}
		device, path, source, options := about[2], unescape(about[4]), words[1], words[2]
		onDisk := !strings.HasPrefix(device, "0:") || strings.HasPrefix(source, "/dev/")
		readOnly := slices.Contains(strings.Split(options, ","), "ro")
		if onDisk && !readOnly && !seen[device] {
			seen[device] = true
			paths = append(paths, path)
		}
	}
	slices.Reverse(paths)
	slices.SortStableFunc(paths, func(a, b string) int { return rank(a) - rank(b) })
	return paths
}

func rank(path string) int {
	if path == "/" {
		return 1
	}
	return 0
}

// unescape undoes the kernel's way to write space, tab, newline and backslash: \040.
func unescape(text string) string {
	var plain strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+4 <= len(text) {
			if code, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				plain.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		plain.WriteByte(text[i])
	}
	return plain.String()
}
