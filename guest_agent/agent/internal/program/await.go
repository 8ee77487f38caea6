package program

import (
	"os"
	"syscall"
	"unsafe"
)

// sysPidfdOpen is pidfd_open, under the same number everywhere.
const sysPidfdOpen = 434

// Await returns when the program has ended. It is not reaped: no other process and no other
// group can get its number before Reap.
//
// Where the kernel has pidfds only a goroutine waits. A thread that waits in the kernel would
// hold up all others until the runtime notices, which it takes its time for (system.Calm).
func (p *Program) Await() {
	const nonblocking = syscall.O_NONBLOCK
	fd, _, errno := syscall.Syscall(sysPidfdOpen, uintptr(p.PID), nonblocking, 0)
	if errno == 0 {
		file := os.NewFile(fd, "pidfd")
		defer file.Close()
		if conn, err := file.SyscallConn(); err == nil {
			conn.Read(func(uintptr) bool { return p.hasEnded(syscall.WNOHANG) })
		}
	}
	for !p.hasEnded(0) {
	}
}

// hasEnded asks the kernel, or waits with it, but for WNOHANG.
func (p *Program) hasEnded(options int) bool {
	const (
		byPID      = 1
		wantExited = 4
		leaveIt    = 0x01000000 // WNOWAIT
	)
	var info [32]int32 // siginfo_t, which begins with SIGCHLD, or 0 where nothing has ended
	_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, byPID, uintptr(p.PID),
		uintptr(unsafe.Pointer(&info)), uintptr(options|wantExited|leaveIt), 0, 0)
	if errno != 0 {
		return errno != syscall.EINTR
	}
	return info[0] != 0
}
