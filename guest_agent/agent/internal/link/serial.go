package link

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// openPort opens the virtio-serial port called name if a host is at its other end; else it
// waits up to wait for one to come and gives errNoHost.
//
// The port tells by POLLHUP that nobody is there. Once open, reading gives end of file when the
// host leaves; opening the port anew also drops what that host left unread.
func openPort(name string, wait time.Duration) (*os.File, error) {
	path, err := findPort(name)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if !hostThere(fd) {
		awaitHost(fd, wait)
		if !hostThere(fd) {
			syscall.Close(fd)
			return nil, errNoHost
		}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func hostThere(fd int) bool {
	events, err := poll(fd, pollOut, 0)
	return err == nil && events&pollHup == 0
}

// awaitHost waits for any change of the port's state. poll cannot: it returns at once for as long
// as there is no host. An edge-triggered epoll reports the first state and then only changes.
func awaitHost(fd int, wait time.Duration) {
	const edge = 1 << 31 // EPOLLET, whose constant in package syscall is negative
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		time.Sleep(wait)
		return
	}
	defer syscall.Close(epoll)
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT | edge, Fd: int32(fd)}
	if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		time.Sleep(wait)
		return
	}
	var events [1]syscall.EpollEvent
	syscall.EpollWait(epoll, events[:], 0)
	if !hostThere(fd) {
		syscall.EpollWait(epoll, events[:], int(wait.Milliseconds()))
	}
}

// findPort looks the name up in sysfs: /dev/virtio-ports/NAME is made by udev, which small
// guests do not have and which no guest has early.
func findPort(name string) (string, error) {
	files, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(content)) == name {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(file))), nil
		}
	}
	return "", os.ErrNotExist
}
