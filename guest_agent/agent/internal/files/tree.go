package files

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"nexus/agent/internal/tarball"
)

const (
	maxDepth    = 256 // of directories in directories
	maxPath     = 4096
	directories = 64 // names of a directory that are read at once
)

// ErrDeep is for directories that lie too deep in one another.
var ErrDeep = errors.New("the directories lie too deep in one another")

// WriteTree writes the file or directory at path as an archive, under name ("" for a directory:
// only what is in it). Files, directories and symbolic links are written; what cannot be read
// ends it.
func WriteTree(to io.Writer, path, name string) error {
	archive := tarball.NewWriter(to)
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if err := addTree(archive, path, name, info, 0); err != nil {
		return err
	}
	return archive.Close()
}

func addTree(archive *tarball.Writer, path, name string, info os.FileInfo, depth int) error {
	if depth > maxDepth {
		return ErrDeep
	}
	header := headerOf(info, name)
	switch header.Type {
	case tarball.File:
		return addFile(archive, path, header)
	case tarball.Link:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		header.Target = target
		return archive.Begin(header)
	case tarball.Directory:
		if name != "" {
			header.Name += "/"
			if err := archive.Begin(header); err != nil {
				return err
			}
			name += "/"
		}
		return addDirectory(archive, path, name, depth)
	}
	return nil // sockets, pipes and devices have no content
}

func headerOf(info os.FileInfo, name string) tarball.Header {
	stat := info.Sys().(*syscall.Stat_t)
	header := tarball.Header{
		Name: name, Mode: stat.Mode & 0o7777, UID: stat.Uid, GID: stat.Gid, Modified: stat.Mtim.Sec,
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		header.Type, header.Size = tarball.File, info.Size()
	case mode.IsDir():
		header.Type = tarball.Directory
	case mode&os.ModeSymlink != 0:
		header.Type = tarball.Link
	}
	return header
}

func addDirectory(archive *tarball.Writer, path, prefix string, depth int) error {
	directory, err := openDirectory(path)
	if err != nil {
		return err
	}
	defer directory.Close()
	for {
		names, err := directory.Readdirnames(directories)
		for _, name := range names {
			below := filepath.Join(path, name)
			info, err := os.Lstat(below)
			if os.IsNotExist(err) {
				continue // gone meanwhile
			}
			if err != nil {
				return err
			}
			if err := addTree(archive, below, prefix+name, info, depth+1); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// addFile adds a file as long as it was found; one that shrinks meanwhile is filled with zeros.
func addFile(archive *tarball.Writer, path string, header tarball.Header) error {
	file, _, err := Open(path, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := archive.Begin(header); err != nil {
		return err
	}
	n, err := Copy(archive, io.LimitReader(file, header.Size))
	if err != nil {
		return err
	}
	_, err = Copy(archive, io.LimitReader(zeros{}, header.Size-n))
	return err
}

type zeros struct{}

func (zeros) Read(data []byte) (int, error) {
	clear(data)
	return len(data), nil
}

// Unpack is how an archive is to be unpacked.
type Unpack struct {
	// Path is the directory; it must be there.
	Path string
	// Owner is whom everything will belong to; nil for the agent's own user.
	Owner *Owner
	// Keep takes the owners that the archive names.
	Keep bool
}

// Count is what an archive held.
type Count struct {
	Entries, Bytes int64
	Skipped        int64 // pipes, devices and the like
}

// ReadTree unpacks an archive. Nothing is written outside of the directory, whatever names and
// links the archive and the directory hold.
func ReadTree(from io.Reader, u Unpack) (count Count, err error) {
	root, err := os.OpenRoot(u.Path)
	if err != nil {
		return count, err
	}
	defer root.Close()
	archive := tarball.NewReader(from)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		known, err := u.add(root, archive, header)
		if err != nil {
			return count, err
		}
		if !known {
			count.Skipped++
			continue
		}
		count.Entries++
		count.Bytes += header.Size
	}
}

func (u Unpack) add(root *os.Root, archive io.Reader, h tarball.Header) (known bool, err error) {
	name, err := localName(h.Name)
	if err != nil {
		return false, err
	}
	if above := filepath.Dir(name); above != "." {
		if err := u.makeAbove(root, above); err != nil {
			return false, err
		}
	}
	switch h.Type {
	case tarball.Directory:
		return true, u.addDirectory(root, name, h)
	case tarball.File:
		return true, u.addFile(root, archive, name, h)
	case tarball.Link:
		root.Remove(name)
		if err := root.Symlink(h.Target, name); err != nil {
			return true, err
		}
		uid, gid := u.owner(h)
		return true, root.Lchown(name, uid, gid)
	case tarball.HardLink:
		target, err := localName(h.Target)
		if err != nil || target == name {
			return true, err
		}
		root.Remove(name)
		return true, root.Link(target, name)
	}
	return false, nil
}

// localName is a name below the directory; one with ".." is refused, not bent into shape.
func localName(name string) (string, error) {
	if len(name) > maxPath {
		return "", &os.PathError{Op: "unpack", Path: name[:maxPath], Err: syscall.ENAMETOOLONG}
	}
	clean := strings.Trim(name, "/")
	if clean == "" {
		clean = "."
	}
	if !filepath.IsLocal(clean) {
		return "", &os.PathError{Op: "unpack", Path: name, Err: syscall.EINVAL}
	}
	return filepath.Clean(clean), nil
}

func (u Unpack) owner(h tarball.Header) (uid, gid int) {
	switch {
	case u.Keep:
		return int(h.UID), int(h.GID)
	case u.Owner != nil:
		return u.Owner.UID, u.Owner.GID
	}
	return os.Getuid(), os.Getgid()
}

// makeAbove makes directories that the archive does not name. Something else in their place, or a
// link that leads out of the directory, stays.
func (u Unpack) makeAbove(root *os.Root, path string) error {
	if info, err := root.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if _, err := root.Lstat(path); err == nil {
		return &os.PathError{Op: "unpack", Path: path, Err: syscall.EEXIST}
	}
	if above := filepath.Dir(path); above != "." {
		if err := u.makeAbove(root, above); err != nil {
			return err
		}
	}
	return u.addDirectory(root, path, tarball.Header{Mode: 0o755, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())})
}

func (u Unpack) addDirectory(root *os.Root, name string, h tarball.Header) error {
	if name == "." {
		return nil // it is there, and how it is, is not the archive's
	}
	if info, err := root.Lstat(name); err == nil && !info.IsDir() {
		if err := root.Remove(name); err != nil {
			return err
		}
	}
	if err := root.Mkdir(name, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	uid, gid := u.owner(h)
	if err := root.Lchown(name, uid, gid); err != nil {
		return err
	}
	return root.Chmod(name, fileMode(h.Mode))
}

func (u Unpack) addFile(root *os.Root, archive io.Reader, name string, h tarball.Header) error {
	root.Remove(name) // else a link in its place would be followed
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := Copy(file, archive); err != nil {
		return err
	}
	uid, gid := u.owner(h)
	if err := file.Chown(uid, gid); err != nil {
		return err
	}
	if err := file.Chmod(fileMode(h.Mode)); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	when := time.Unix(h.Modified, 0)
	return root.Chtimes(name, when, when)
}

// fileMode is permissions and set-id bits as package os has them.
func fileMode(mode uint32) os.FileMode {
	m := os.FileMode(mode & 0o777)
	for bit, name := range map[uint32]os.FileMode{
		0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky,
	} {
		if mode&bit != 0 {
			m |= name
		}
	}
	return m
}
