package files

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const buffer = 256 << 10

// ErrKind is for a file of a kind that has no content.
var ErrKind = errors.New("it is no ordinary file")

// Open opens an ordinary file at an offset.
func Open(path string, offset int64) (*os.File, Info, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would wait
	if err != nil {
		return nil, Info{}, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrKind
		if info.IsDir() {
			err = syscall.EISDIR
		}
	}
	if err == nil && offset > 0 {
		_, err = file.Seek(offset, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, Info{}, err
	}
	return file, describe(filepath.Dir(path), info), nil
}

// Copy copies to the source's end.
func Copy(to io.Writer, from io.Reader) (int64, error) {
	// Without its shortcuts, which the runtime takes for files and which end in small buffers.
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, buffer))
}

// Owner is whom files belong to.
type Owner struct{ UID, GID int }

// Wish is how a file is to be written.
type Wish struct {
	Path string
	// Mode is nil for that of the file before, or 0644.
	Mode *uint32
	// Owner is nil for that of the file before, or the agent's own.
	Owner   *Owner
	Parents bool
	// Offset, where it is set, is where to write in the file itself; else the file is replaced.
	Offset *int64
}

// Write is a file on its way in. It must be ended, with Commit or with Abort.
type Write struct {
	*os.File
	path, temporary string
	closed          bool
}

// Close closes the file before it is ended; it may be called again.
func (w *Write) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	return w.File.Close()
}

// Begin opens what is written into.
func Begin(w Wish) (*Write, error) {
	path := w.Path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // the file that a link points to, not the link, is replaced
	}
	if w.Parents {
		if err := MakeDirectory(filepath.Dir(path), 0o755, w.Owner, true); err != nil {
			return nil, err
		}
	}
	before, err := os.Lstat(path)
	if err == nil && before.IsDir() {
		return nil, &os.PathError{Op: "write", Path: path, Err: syscall.EISDIR}
	}
	if err == nil && !before.Mode().IsRegular() {
		return nil, ErrKind
	}
	if w.Offset != nil {
		return beginInPlace(path, w)
	}
	temporary := filepath.Join(filepath.Dir(path), ".nexus-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	write := &Write{File: file, path: path, temporary: temporary}
	if err := dress(file, before, w); err != nil {
		write.Abort()
		return nil, err
	}
	return write, nil
}

func beginInPlace(path string, w Wish) (*Write, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, err
	}
	if err = dress(file, nil, w); err == nil {
		_, err = file.Seek(*w.Offset, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Write{File: file, path: path}, nil
}

// dress gives the file its owner and mode: those wanted, else those of the file before it.
func dress(file *os.File, before os.FileInfo, w Wish) error {
	owner, mode := w.Owner, w.Mode
	fresh := uint32(0o644)
	if w.Offset == nil && mode == nil {
		mode = &fresh
	}
	if before != nil {
		stat := before.Sys().(*syscall.Stat_t)
		if w.Mode == nil {
			old := stat.Mode & 0o7777
			mode = &old
		}
		if owner == nil {
			owner = &Owner{int(stat.Uid), int(stat.Gid)}
		}
	}
	if owner != nil {
		if err := file.Chown(owner.UID, owner.GID); err != nil {
			return err
		}
	}
	if mode != nil {
		return file.Chmod(fileMode(*mode))
	}
	return nil
}

// Commit puts the file in its place.
func (w *Write) Commit() error {
	if w.temporary == "" {
		return w.Close()
	}
	if err := w.Close(); err != nil {
		os.Remove(w.temporary)
		return err
	}
	if err := os.Rename(w.temporary, w.path); err != nil {
		os.Remove(w.temporary)
		return err
	}
	return nil
}

// Abort leaves the place as it was; what was written in place stays.
func (w *Write) Abort() {
	w.Close()
	if w.temporary != "" {
		os.Remove(w.temporary)
	}
}

// MakeDirectory makes a directory, with parents if need be those above it too; one that is there
// is an error only without parents.
func MakeDirectory(path string, mode uint32, owner *Owner, parents bool) error {
	if parents {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return nil
		}
		if above := filepath.Dir(path); above != path {
			if err := MakeDirectory(above, 0o755, owner, true); err != nil {
				return err
			}
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if owner != nil {
		if err := os.Chown(path, owner.UID, owner.GID); err != nil {
			return err
		}
	}
	return syscall.Chmod(path, mode)
}

// Remove removes a file or, where all of it may go, a directory.
func Remove(path string, all bool) error {
	if !all {
		return os.Remove(path)
	}
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// Move gives a file another name in the same file system; one of that name only if it may be replaced.
func Move(path, to string, replace bool) error {
	if !replace {
		if _, err := os.Lstat(to); err == nil {
			return &os.PathError{Op: "move", Path: to, Err: syscall.EEXIST}
		}
	}
	return os.Rename(path, to)
}
