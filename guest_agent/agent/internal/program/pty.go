package program

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

const (
	ioctlSetSize    = 0x5414     // TIOCSWINSZ
	ioctlForeground = 0x540f     // TIOCGPGRP
	ioctlUnlock     = 0x40045431 // TIOCSPTLCK
	ioctlPeer       = 0x5441     // TIOCGPTPEER
	terminalMode    = 0o620      // as login sets it: nobody else reads, write(1) may write
)

// Size is a terminal's.
type Size struct{ Rows, Cols uint16 }

// openTerminal makes a terminal: the program's end, and ours, on which only goroutines wait.
func openTerminal(size Size, user *User) (theirs int, ours *os.File, err error) {
	const flags = syscall.O_RDWR | syscall.O_NOCTTY | syscall.O_CLOEXEC
	master, err := syscall.Open("/dev/ptmx", flags|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, nil, errors.New("the guest gives no terminal: " + err.Error())
	}
	var locked int32
	err = ioctl(master, ioctlUnlock, uintptr(unsafe.Pointer(&locked)))
	if err == nil {
		err = setSize(master, size)
	}
	peer, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(master), ioctlPeer, flags)
	if err == nil && errno != 0 {
		err = errno
	}
	if err != nil {
		syscall.Close(master)
		return 0, nil, errors.New("the guest gives no terminal: " + err.Error())
	}
	syscall.Fchmod(int(peer), terminalMode)
	if user != nil {
		syscall.Fchown(int(peer), int(user.UID), -1)
	}
	return int(peer), os.NewFile(uintptr(master), "terminal"), nil
}

func setSize(fd int, size Size) error {
	asked := [4]uint16{size.Rows, size.Cols} // struct winsize; the last two are pixels
	return ioctl(fd, ioctlSetSize, uintptr(unsafe.Pointer(&asked)))
}

func ioctl(fd int, request, argument uintptr) error {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, argument)
	if errno != 0 {
		return errno
	}
	return nil
}

// Resize gives the program's terminal, where it has one, a new size; the kernel tells the program.
func (p *Program) Resize(size Size) {
	if p.Terminal {
		withDescriptor(p.Stdout, func(fd int) { setSize(fd, size) })
	}
}

// foreground is the process group that the terminal's keys go to; 0 where there is none.
func (p *Program) foreground() int {
	var group int32
	if p.Terminal {
		withDescriptor(p.Stdout, func(fd int) {
			ioctl(fd, ioctlForeground, uintptr(unsafe.Pointer(&group)))
		})
	}
	return int(group)
}

// withDescriptor calls do with the file's descriptor unless it is closed. It stays non-blocking.
func withDescriptor(file *os.File, do func(fd int)) {
	if raw, err := file.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { do(int(fd)) })
	}
}
