package system

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
)

const (
	// calmSlack, in nanoseconds, is how late the runtime's watchdog may wake.
	calmSlack = 1_000_000
	// kernelSlack is what the kernel gives the first process, and with that everybody.
	kernelSlack = 50_000
)

// ordinarySlack is how late timers of programs may be: as late as the agent's own when it began.
var ordinarySlack = firstSlack()

// Calm makes Go's watchdog thread (sysmon) wake with the kernel's ticks. While the agent works,
// waits for a fork or is in a system call, it would wake every 20 µs: with KVM nobody notices, but
// in emulation each time costs as much as many system calls, and took a third of the time of
// an exec. Must be the program's first act: the thread is the second of the process then. Threads
// that the watchdog begins inherit its slack, so whatever starts a program does so Exactly.
func Calm() {
	directory, err := os.Open("/proc/self/task")
	if err != nil {
		return
	}
	defer directory.Close()
	threads, err := directory.Readdirnames(2) // in the order in which they began
	if err == nil && len(threads) == 2 {
		os.WriteFile("/proc/"+threads[1]+"/timerslack_ns", []byte(strconv.Itoa(calmSlack)), 0)
	}
}

// firstSlack is that of the thread from which the agent comes, unless that was one of another
// agent's watchdog: older ones let theirs run a new agent in their place.
func firstSlack() uintptr {
	if slack := threadSlack(); slack != 0 && slack != calmSlack {
		return slack
	}
	return kernelSlack
}

func threadSlack() uintptr {
	slack, _, _ := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_GET_TIMERSLACK, 0, 0)
	return slack
}

// Exactly makes a call that starts a program, on a thread whose timers the program may inherit.
func Exactly(start func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_TIMERSLACK, ordinarySlack, 0)
	start()
}
