package agent

import (
	"syscall"
	"time"
)

// DefaultLock is the abstract Unix socket that the one agent of a guest holds. Another, which the
// distribution's init starts as a service, connects to it and so learns at once when the first
// one ends.
const DefaultLock = "@nexus-agent"

// Hold waits until this process is the guest's agent. From then on a process of root that
// connects is the service, and its init has come so far: settled is called.
func Hold(name string, settled func()) error {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for {
		err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: name})
		if err == nil {
			break
		}
		if err != syscall.EADDRINUSE {
			return err
		}
		awaitEnd(name)
		time.Sleep(10 * time.Millisecond)
	}
	if err := syscall.Listen(fd, 4); err != nil {
		return err
	}
	go watch(fd, settled)
	return nil
}

// awaitEnd returns when the process that holds the lock has ended.
func awaitEnd(name string) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	if syscall.Connect(fd, &syscall.SockaddrUnix{Name: name}) != nil {
		return
	}
	var nothing [1]byte
	for {
		if _, err := syscall.Read(fd, nothing[:]); err != syscall.EINTR {
			return
		}
	}
}

// watch accepts waiting agents. Their connections stay open for as long as this process lives.
func watch(fd int, settled func()) {
	for {
		peer, _, err := syscall.Accept4(fd, syscall.SOCK_CLOEXEC)
		if err == syscall.EINTR || err == syscall.ECONNABORTED {
			continue
		}
		if err != nil {
			return
		}
		who, err := syscall.GetsockoptUcred(peer, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err != nil || who.Uid != 0 {
			syscall.Close(peer)
			continue
		}
		settled()
	}
}
