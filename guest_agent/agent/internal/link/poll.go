package link

import (
	"syscall"
	"unsafe"
)

const (
	pollOut = 0x4
	pollHup = 0x10
)

type pollFd struct {
	fd      int32
	events  int16
	revents int16
}

// poll is poll(2) of one descriptor by ppoll, the call that every architecture has.
// It gives the events that happened, 0 after timeout milliseconds.
func poll(fd int, events int16, timeout int64) (int16, error) {
	request := pollFd{fd: int32(fd), events: events}
	for {
		limit := syscall.NsecToTimespec(timeout * 1e6)
		_, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&request)), 1,
			uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
		if errno != syscall.EINTR {
			return request.revents, result(errno)
		}
	}
}
