// Package ports opens connections to the programs of this guest that listen on a TCP port.
package ports

import (
	"os"
	"syscall"
	"time"
)

const dialTime = 10 * time.Second // for a program whose queue of connections is full

// Conn is a TCP connection inside the guest.
type Conn struct{ *os.File }

// Dial connects to a port of the guest's loopback, over IPv4 or else IPv6; ECONNREFUSED where
// nobody listens on either.
func Dial(port int) (Conn, error) {
	four := &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	conn, err := dial(syscall.AF_INET, four)
	if err == syscall.ECONNREFUSED {
		six := &syscall.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}
		if other, otherErr := dial(syscall.AF_INET6, six); otherErr == nil {
			return other, nil
		}
	}
	return conn, err
}

func dial(family int, address syscall.Sockaddr) (Conn, error) {
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return Conn{}, err
	}
	// What comes from the host has been gathered into packets there.
	syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	if err := syscall.Connect(fd, address); err != nil && err != syscall.EINPROGRESS {
		syscall.Close(fd)
		return Conn{}, err
	}
	conn := Conn{os.NewFile(uintptr(fd), "port")}
	if err := conn.await(); err != nil {
		conn.Close()
		return Conn{}, err
	}
	return conn, nil
}

// await waits until it is known whether the connection is made.
func (c Conn) await() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	c.SetWriteDeadline(time.Now().Add(dialTime))
	defer c.SetWriteDeadline(time.Time{})
	err = raw.Write(func(fd uintptr) bool {
		var known bool
		known, refused = outcome(int(fd))
		return known
	})
	if err != nil {
		return err
	}
	return refused
}

// outcome is how a connection that was begun has turned out, if that is known.
func outcome(fd int) (known bool, err error) {
	if code, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR); err != nil || code != 0 {
		if err == nil {
			err = syscall.Errno(code)
		}
		return true, err
	}
	peer, err := syscall.Getpeername(fd)
	if err != nil {
		return false, nil
	}
	own, err := syscall.Getsockname(fd)
	if err == nil && portOf(own) == portOf(peer) {
		err = syscall.ECONNREFUSED // it has met itself: the kernel took the same port for this end
	}
	return true, err
}

func portOf(address syscall.Sockaddr) int {
	switch address := address.(type) {
	case *syscall.SockaddrInet4:
		return address.Port
	case *syscall.SockaddrInet6:
		return address.Port
	}
	return 0
}

// CloseWrite is the half-close: the program reads end of file after what was written.
func (c Conn) CloseWrite() {
	c.control(func(fd int) { syscall.Shutdown(fd, syscall.SHUT_WR) })
}

// Abort ends the connection with a reset: the program must not take what came for all.
func (c Conn) Abort() {
	c.control(func(fd int) {
		syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	})
	c.Close()
}

func (c Conn) control(do func(fd int)) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { do(int(fd)) })
	}
}
