// Package files is what the agent does with the guest's files for the host.
package files

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Info is what is known of one file. Name is the last part of its path.
type Info struct {
	Name, Type string
	Size       int64
	Mode       uint32 // permissions and set-id bits
	UID, GID   uint32
	Modified   float64 // seconds since the epoch
	Target     string  // of a symbolic link
}

// Stat tells of the file at path; of a symbolic link itself unless it is to be followed.
func Stat(path string, follow bool) (Info, error) {
	look := os.Lstat
	if follow {
		look = os.Stat
	}
	found, err := look(path)
	if err != nil {
		return Info{}, err
	}
	return describe(filepath.Dir(path), found), nil
}

func describe(directory string, found os.FileInfo) Info {
	info := Info{Name: found.Name(), Type: typeOf(found.Mode()), Size: found.Size()}
	if stat, ok := found.Sys().(*syscall.Stat_t); ok {
		info.Mode = stat.Mode & 0o7777
		info.UID, info.GID = stat.Uid, stat.Gid
		info.Modified = max(0, float64(stat.Mtim.Sec)+float64(stat.Mtim.Nsec/1e6)/1e3)
	}
	if info.Type == "link" {
		info.Target, _ = os.Readlink(filepath.Join(directory, found.Name()))
	}
	return info
}

func typeOf(mode os.FileMode) string {
	switch {
	case mode.IsRegular():
		return "file"
	case mode.IsDir():
		return "directory"
	case mode&os.ModeSymlink != 0:
		return "link"
	case mode&os.ModeNamedPipe != 0:
		return "fifo"
	case mode&os.ModeSocket != 0:
		return "socket"
	}
	return "device"
}

// MaxPage is the most names of one List.
const MaxPage = 1000

// List gives the names in a directory that come after the one given, in order, at most limit of
// them, and whether there are more. However large the directory is, few are held.
func List(path, after string, limit int) (names []string, more bool, err error) {
	directory, err := openDirectory(path)
	if err != nil {
		return nil, false, err
	}
	defer directory.Close()
	for err == nil {
		var next []string
		next, err = directory.Readdirnames(MaxPage)
		for _, name := range next {
			if name > after {
				names = append(names, name)
			}
		}
		if len(names) > 4*limit {
			names, more = smallest(names, limit), true
		}
	}
	if len(names) > limit {
		more = true
	}
	return smallest(names, limit), more, nil
}

func smallest(names []string, limit int) []string {
	slices.Sort(names)
	return names[:min(len(names), limit)]
}

// openDirectory opens nothing but a directory: opening a pipe would wait.
func openDirectory(path string) (*os.File, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
