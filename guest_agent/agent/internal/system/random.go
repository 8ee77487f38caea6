package system

import (
	"syscall"
	"unsafe"
)

// Random fills b from the kernel. The standard library's crypto/rand would bring a quarter of a
// megabyte of its own generators along.
func Random(b []byte) error {
	for len(b) > 0 {
		n, _, errno := syscall.Syscall(sysGetrandom, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
		if errno != 0 && errno != syscall.EINTR {
			return errno
		}
		b = b[n:]
	}
	return nil
}
