package agent

import (
	"errors"
	"io"
	"math"
	"path/filepath"
	"strings"
	"syscall"

	"nexus/agent/internal/files"
	"nexus/agent/internal/minijson"
	"nexus/agent/internal/tarball"
)

const maxTransfers = 64

// The codes of refusals for what the system says about files.
var fileCodes = map[syscall.Errno]string{
	syscall.ENOENT: "not-found", syscall.ENOTDIR: "not-found",
	syscall.EEXIST: "conflict", syscall.EISDIR: "conflict", syscall.ENOTEMPTY: "conflict", syscall.EBUSY: "conflict",
	syscall.EXDEV: "conflict", syscall.ETXTBSY: "conflict",
	syscall.EACCES: "denied", syscall.EPERM: "denied", syscall.EROFS: "denied",
	syscall.ENOSPC: "full", syscall.EDQUOT: "full", syscall.EFBIG: "full",
	syscall.EINVAL: "invalid", syscall.ELOOP: "invalid", syscall.ENAMETOOLONG: "invalid",
}

// refusal is an error with its code.
type refusal struct{ code, text string }

func (r refusal) Error() string { return r.text }

// refuseFile tells the host what the system says.
func (c *call) refuseFile(err error) error {
	var errno syscall.Errno
	var known refusal
	code := "failed"
	switch {
	case errors.As(err, &known):
		code = known.code
	case errors.As(err, &errno) && fileCodes[errno] != "":
		code = fileCodes[errno]
	case errors.Is(err, tarball.ErrFormat), errors.Is(err, files.ErrKind), errors.Is(err, files.ErrDeep),
		errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "path escapes"):
		code = "invalid"
	}
	return c.refuse(code, err.Error())
}

// path is a path of the header, as the agent reaches it; "" for one that cannot be, which the
// host has been told.
func (a *Agent) path(c *call, key string) string {
	path, err := c.request.Text(key)
	if err != nil || !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) {
		c.refuse("invalid", "the field "+key+" must be an absolute path")
		return ""
	}
	return a.System.Path(filepath.Clean(path))
}

// changes wraps operations that change files: they must not wait for a thaw.
func changes(operation func(*Agent, *call) error) func(*Agent, *call) error {
	return func(a *Agent, c *call) error {
		if a.frost.Load() != nil {
			return c.refuse("busy", "the file systems are frozen")
		}
		return operation(a, c)
	}
}

// transfer wraps operations that take their time.
func transfer(operation func(*Agent, *call) error) func(*Agent, *call) error {
	return func(a *Agent, c *call) error {
		defer a.transfers.Add(-1)
		if a.transfers.Add(1) > maxTransfers {
			return c.refuse("busy", "as many files are on their way as the agent can mind")
		}
		if a.leaving.Load() {
			return c.refuse("busy", errLeaving)
		}
		return operation(a, c)
	}
}

func (a *Agent) stat(c *call) error {
	path := a.path(c, "path")
	follow, err := c.request.Bool("follow")
	if path == "" || err != nil {
		return err
	}
	info, err := files.Stat(path, follow)
	if err != nil {
		return c.refuseFile(err)
	}
	return c.reply(infoObject(info))
}

func infoObject(info files.Info) minijson.Object {
	object := minijson.Object{
		"name": info.Name, "type": info.Type, "size": info.Size, "mode": int64(info.Mode),
		"uid": int64(info.UID), "gid": int64(info.GID), "modified": info.Modified,
	}
	if info.Type == "link" {
		object["target"] = info.Target
	}
	return object
}

// list gives a page of a directory, each file in a record of its own.
func (a *Agent) list(c *call) error {
	path := a.path(c, "path")
	after, afterErr := c.request.Text("after")
	limit, limitErr := c.request.Number("limit")
	if err := errors.Join(afterErr, limitErr); path == "" || err != nil {
		return err
	}
	if limit < 1 || limit > files.MaxPage {
		limit = files.MaxPage
	}
	names, more, err := files.List(path, after, int(limit))
	if err != nil {
		return c.refuseFile(err)
	}
	if err := c.reply(minijson.Object{"more": more}); err != nil {
		return err
	}
	for _, name := range names {
		info, err := files.Stat(filepath.Join(path, name), false)
		if err != nil {
			info = files.Info{Name: name, Type: "gone"}
		}
		if err := writeHeader(c.stream, infoObject(info)); err != nil {
			return err
		}
	}
	return nil
}

// read sends a file's bytes.
func (a *Agent) read(c *call) error {
	path := a.path(c, "path")
	if path == "" {
		return nil
	}
	offset, offsetErr := bytesField(c.request, "offset")
	length, lengthErr := bytesField(c.request, "length")
	if err := errors.Join(offsetErr, lengthErr); err != nil {
		return c.refuse("invalid", err.Error())
	}
	file, info, err := files.Open(path, offset)
	if err != nil {
		return c.refuseFile(err)
	}
	defer file.Close()
	var from io.Reader = file
	if c.request["length"] != nil {
		from = io.LimitReader(file, length)
	}
	if err := c.reply(infoObject(info)); err != nil {
		return err
	}
	if _, err := files.Copy(c.stream, from); err != nil {
		c.stream.Reset() // what has come is not all
	}
	return nil
}

func bytesField(request minijson.Object, key string) (int64, error) {
	number, err := request.Number(key)
	if err != nil || number < 0 || number > maxOffset || number != math.Trunc(number) {
		return 0, errors.New("the field " + key + " must be a number of bytes")
	}
	return int64(number), nil
}

// write takes a file's bytes. It answers twice: when it is ready for them, and when they are in
// their place.
func (a *Agent) write(c *call) error {
	wish := files.Wish{Path: a.path(c, "path")}
	if wish.Path == "" {
		return nil
	}
	var size int64
	var errs [5]error
	wish.Mode, errs[0] = modeField(c.request)
	wish.Owner, errs[1] = a.ownerField(c.request)
	wish.Parents, errs[2] = c.request.Bool("parents")
	size, errs[3] = bytesField(c.request, "size")
	if c.request["offset"] != nil {
		var offset int64
		offset, errs[4] = bytesField(c.request, "offset")
		wish.Offset = &offset
	}
	if err := errors.Join(errs[:]...); err != nil {
		return c.refuse("invalid", err.Error())
	}
	file, err := files.Begin(wish)
	if err != nil {
		return c.refuseFile(err)
	}
	if err := c.reply(nil); err != nil {
		file.Abort()
		return err
	}
	n, err := files.Copy(file, c.stream)
	if err == nil && c.request["size"] != nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		file.Abort()
		return c.refuseFile(err)
	}
	if err := file.Commit(); err != nil {
		return c.refuseFile(err)
	}
	return c.reply(minijson.Object{"size": n})
}

// modeField is the field "mode"; nil where it is absent.
func modeField(request minijson.Object) (*uint32, error) {
	number, err := request.Number("mode")
	if err != nil || number < 0 || number > 0o7777 {
		return nil, errors.New("the field mode must be 0 to 4095")
	}
	if request["mode"] == nil {
		return nil, nil
	}
	mode := uint32(number)
	return &mode, nil
}

// ownerField is whom the field "user" names; nil where it is absent.
func (a *Agent) ownerField(request minijson.Object) (*files.Owner, error) {
	wanted, err := request.Text("user")
	if err != nil || wanted == "" {
		return nil, err
	}
	user, err := a.user(wanted)
	if err != nil {
		return nil, err
	}
	return &files.Owner{UID: int(user.UID), GID: int(user.GID)}, nil
}

// readTar sends a file or a directory as an archive.
func (a *Agent) readTar(c *call) error {
	path := a.path(c, "path")
	name, err := c.request.Text("name")
	if path == "" || err != nil {
		return err
	}
	info, err := files.Stat(path, false)
	if err != nil {
		return c.refuseFile(err)
	}
	if c.request["name"] == nil {
		name = info.Name
	}
	if err := c.reply(infoObject(info)); err != nil {
		return err
	}
	if err := files.WriteTree(c.stream, path, name); err != nil {
		c.stream.Reset()
	}
	return nil
}

// writeTar unpacks an archive into a directory. It answers twice, as write does.
func (a *Agent) writeTar(c *call) error {
	unpack := files.Unpack{Path: a.path(c, "path")}
	if unpack.Path == "" {
		return nil
	}
	var parents bool
	var errs [3]error
	unpack.Owner, errs[0] = a.ownerField(c.request)
	unpack.Keep, errs[1] = c.request.Bool("keep_owner")
	parents, errs[2] = c.request.Bool("parents")
	if err := errors.Join(errs[:]...); err != nil {
		return c.refuse("invalid", err.Error())
	}
	if parents {
		if err := files.MakeDirectory(unpack.Path, 0o755, unpack.Owner, true); err != nil {
			return c.refuseFile(err)
		}
	}
	if info, err := files.Stat(unpack.Path, true); err != nil {
		return c.refuseFile(err)
	} else if info.Type != "directory" {
		return c.refuse("conflict", "there is a "+info.Type+" in the directory's place")
	}
	if err := c.reply(nil); err != nil {
		return err
	}
	count, err := files.ReadTree(c.stream, unpack)
	if err == nil {
		_, err = files.Copy(io.Discard, c.stream) // archives may be padded
	}
	if err != nil {
		return c.refuseFile(err)
	}
	return c.reply(minijson.Object{"entries": count.Entries, "bytes": count.Bytes, "skipped": count.Skipped})
}

func (a *Agent) remove(c *call) error {
	path := a.path(c, "path")
	all, err := c.request.Bool("recursive")
	if path == "" || err != nil {
		return err
	}
	if path == filepath.Clean(a.System.Path("/")) {
		return c.refuse("invalid", "the root is not removed")
	}
	return c.done(files.Remove(path, all))
}

func (a *Agent) mkdir(c *call) error {
	path := a.path(c, "path")
	if path == "" {
		return nil
	}
	mode, modeErr := modeField(c.request)
	owner, ownerErr := a.ownerField(c.request)
	parents, err := c.request.Bool("parents")
	if err := errors.Join(modeErr, ownerErr, err); err != nil {
		return c.refuse("invalid", err.Error())
	}
	wanted := uint32(0o755)
	if mode != nil {
		wanted = *mode
	}
	return c.done(files.MakeDirectory(path, wanted, owner, parents))
}

func (a *Agent) move(c *call) error {
	path := a.path(c, "path")
	if path == "" {
		return nil
	}
	to := a.path(c, "to")
	replace, err := c.request.Bool("replace")
	if to == "" || err != nil {
		return err
	}
	return c.done(files.Move(path, to, replace))
}

// done answers for an operation that has nothing else to say.
func (c *call) done(err error) error {
	if err != nil {
		return c.refuseFile(err)
	}
	return c.reply(nil)
}
