package system

import "os"

// calmSlack, in nanoseconds, is how late the runtime's watchdog may wake.
const calmSlack = "1000000"

// Calm makes Go's watchdog thread (sysmon) wake with the kernel's ticks. While the agent works,
// waits for a fork or is in a system call, it would wake every 20 µs: with KVM nobody notices, but
// in emulation each time costs as much as many system calls, and took a third of the time of
// an exec. Must be the program's first act: the thread is the second of the process then.
func Calm() {
	directory, err := os.Open("/proc/self/task")
	if err != nil {
		return
	}
	defer directory.Close()
	threads, err := directory.Readdirnames(2) // in the order in which they began
	if err == nil && len(threads) == 2 {
		os.WriteFile("/proc/"+threads[1]+"/timerslack_ns", []byte(calmSlack), 0)
	}
}
