package program

import (
	"os"
	"syscall"

	"nexus/agent/internal/system"
)

// Replace runs another program in the place of this one, as the same process: its children stay
// its children, and the files stay open under the same numbers. It returns only if that failed.
func Replace(path string, argv []string, files []int) (err error) {
	forking.Lock() // no program that starts now may inherit the files
	defer forking.Unlock()
	for _, fd := range files {
		setInherited(fd, true)
	}
	system.Exactly(func() { err = syscall.Exec(path, argv, os.Environ()) })
	for _, fd := range files {
		setInherited(fd, false)
	}
	return err
}

func setInherited(fd int, inherited bool) {
	flags := uintptr(syscall.FD_CLOEXEC)
	if inherited {
		flags = 0
	}
	syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_SETFD, flags)
}

// Inherited is a file that Replace has left open. Pipes and terminals get back to the poller.
func Inherited(fd int, name string) *os.File {
	setInherited(fd, false)
	return os.NewFile(uintptr(fd), name)
}

// Descriptor is the number of an open file; -1 for nil and for one that is closed.
func Descriptor(file *os.File) (number int) {
	number = -1
	if file != nil {
		withDescriptor(file, func(fd int) { number = fd })
	}
	return number
}
