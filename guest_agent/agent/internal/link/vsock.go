package link

import (
	"os"
	"syscall"
	"unsafe"
)

// AF_VSOCK by raw system calls: the standard library has no address type for it.
const (
	afVsock        = 40
	hostCID        = 2
	connectTimeout = 500 // milliseconds
)

// sockaddrVM is struct sockaddr_vm of <linux/vm_sockets.h>.
type sockaddrVM struct {
	family   uint16
	reserved uint16
	port     uint32
	cid      uint32
	zero     [4]uint8
}

func dialVsock(cid, port uint32) (*os.File, error) {
	fd, err := syscall.Socket(afVsock, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := connectVsock(fd, sockaddrVM{family: afVsock, port: port, cid: cid}); err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}

func connectVsock(fd int, address sockaddrVM) error {
	_, _, errno := syscall.Syscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address)), unsafe.Sizeof(address))
	if errno != syscall.EINPROGRESS {
		return result(errno)
	}
	if events, err := poll(fd, pollOut, connectTimeout); err != nil {
		return err
	} else if events == 0 {
		return syscall.ETIMEDOUT
	}
	code, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	if err != nil {
		return err
	}
	return result(syscall.Errno(code))
}

func result(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}
