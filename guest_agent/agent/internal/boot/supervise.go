package boot

import (
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"nexus/agent/internal/system"
)

const restartDelay = time.Second

// halting is set once the guest is on its way down: the agent is then not started again.
var halting atomic.Bool

// supervise stays the first process: it keeps the agent running, reaps every process that lost
// its parent, and ends the guest when a signal says so.
func (g guest) supervise() {
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_CAD_OFF) // Ctrl-Alt-Del becomes SIGINT
	go obeySignals()
	os.Setenv("PATH", searchPath[len("PATH="):])
	for first := true; ; first = false {
		pid := 0
		if !halting.Load() {
			var err error
			if pid, err = g.startAgent(); err != nil {
				complain("cannot start the agent", err)
			}
		}
		if first {
			g.renewIdentity()
		}
		reapUntil(pid)
		time.Sleep(restartDelay)
	}
}

// reapUntil collects ended children until the process pid is among them, or none are left.
func reapUntil(pid int) {
	for {
		ended, err := syscall.Wait4(-1, nil, 0, nil)
		if ended == pid || err == syscall.ECHILD {
			return
		}
	}
}

// powerButton is what the kernel's tiny_power_button sends to PID 1: SIGRTMIN+4.
const powerButton = syscall.Signal(38)

// obeySignals takes the signals that BusyBox's commands and the kernel send to PID 1.
func obeySignals() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPWR,
		powerButton)
	mode := system.PowerOff
	if got := <-signals; got == syscall.SIGINT || got == syscall.SIGTERM {
		mode = system.Restart
	}
	halting.Store(true)
	complain("the guest ends", system.Halt(mode))
}
