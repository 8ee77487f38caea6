// Package sessions keeps programs that live on without the host, and the end of their output.
package sessions

import (
	"os"
	"syscall"
	"unsafe"
)

// maxRuns bounds how often kept output may change between the two outputs.
const maxRuns = 4096

// ring is the last bytes of an endless output. They lie in a memory file, which outlives the
// agent's own replacement and is given back to the guest as soon as it is closed.
type ring struct {
	file *os.File
	keep uint64
	// first is the offset of the oldest byte that is kept, size the number of bytes ever.
	first, size uint64
	runs        []run // what lies between first and size
}

// run is output of one kind, up to the offset end.
type run struct {
	end  uint64
	kind Event
}

func newRing(keep int) (*ring, error) {
	file, err := MemoryFile("nexus-output")
	if err != nil {
		return nil, err
	}
	return &ring{file: file, keep: uint64(keep)}, nil
}

// MemoryFile is a file without a name.
func MemoryFile(title string) (*os.File, error) {
	const closeOnExec = 1
	name, err := syscall.BytePtrFromString(title)
	if err != nil {
		return nil, err
	}
	fd, _, errno := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(name)), closeOnExec, 0)
	if errno != 0 {
		return nil, errno
	}
	return os.NewFile(fd, title), nil
}

// append adds output; what is too old for the ring is forgotten.
func (r *ring) append(kind Event, data []byte) error {
	for len(data) > 0 {
		at := r.size % r.keep
		n := min(uint64(len(data)), r.keep-at)
		if _, err := r.file.WriteAt(data[:n], int64(at)); err != nil {
			return err
		}
		r.grow(kind, n)
		data = data[n:]
	}
	return nil
}

func (r *ring) grow(kind Event, n uint64) {
	r.size += n
	if last := len(r.runs) - 1; last >= 0 && r.runs[last].kind == kind {
		r.runs[last].end = r.size
	} else {
		r.runs = append(r.runs, run{r.size, kind})
	}
	if r.size > r.keep {
		r.first = max(r.first, r.size-r.keep)
	}
	gone := 0
	for len(r.runs)-gone > maxRuns || r.runs[gone].end <= r.first {
		r.first = max(r.first, r.runs[gone].end)
		gone++
	}
	if gone > 0 {
		r.runs = append(r.runs[:0], r.runs[gone:]...)
	}
}

// read copies output from offset on into room: as much as is of one kind and lies together. The
// offset must be kept; 0 bytes are where nothing has come yet.
func (r *ring) read(offset uint64, room []byte) (kind Event, n int, err error) {
	for _, run := range r.runs {
		if run.end <= offset {
			continue
		}
		at := offset % r.keep
		length := min(uint64(len(room)), run.end-offset, r.keep-at)
		n, err = r.file.ReadAt(room[:length], int64(at))
		return run.kind, n, err
	}
	return 0, 0, nil
}
