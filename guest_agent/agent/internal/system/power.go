package system

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Mode is how a guest ends.
type Mode string

// The ways to end a guest.
const (
	PowerOff Mode = "poweroff"
	Restart  Mode = "reboot"
)

const (
	termTimeout = 2 * time.Second
	syncTimeout = 20 * time.Second
	busyTimeout = 5 * time.Second
)

// PanicAsTold has a panic end the guest when the kernel was told it should. Settings of a
// distribution's (Alpine's: 120 seconds) are for people who read a screen; the host reads the console.
// To be called once init has applied them. Who wants a guest to stand still after one keeps that.
func PanicAsTold(s System) {
	_, inGuest := s.(Guest)
	if told, there := KernelWord("panic"); there && inGuest {
		shortenPanic("/proc/sys/kernel/panic", told)
	}
}

func shortenPanic(name, told string) {
	if seconds, err := strconv.Atoi(read(name)); err == nil && seconds > 0 {
		os.WriteFile(name, []byte(told), 0)
	}
}

// Shutdown lets the distribution's init end the guest and, where there is none or it has not
// come to an end after grace, does it itself.
//
// A machine that cannot switch itself off would hang for ever: there, powering off is a restart,
// which ends the VMM as well.
func (Guest) Shutdown(mode Mode, hasInit bool, grace time.Duration) error {
	if mode == PowerOff && !canPowerOff() {
		mode = Restart
	}
	if hasInit {
		go askInit(mode)
		time.Sleep(grace)
	}
	return Halt(mode)
}

// Shutdown is written down.
func (s Sandbox) Shutdown(mode Mode, hasInit bool, _ time.Duration) error {
	return s.record("shutdown " + string(mode))
}

// askInit runs the distribution's own command; without one it sends init the signal it knows.
func askInit(mode Mode) {
	for _, directory := range []string{"/sbin/", "/usr/sbin/", "/bin/", "/usr/bin/"} {
		command := directory + string(mode)
		if _, err := os.Stat(command); err != nil {
			continue
		}
		var pid int
		var err error
		Exactly(func() {
			pid, err = syscall.ForkExec(command, []string{command}, &syscall.ProcAttr{
				Env: os.Environ(), Files: []uintptr{0, 1, 2},
			})
		})
		if err != nil {
			continue
		}
		var status syscall.WaitStatus
		syscall.Wait4(pid, &status, 0, nil)
		if status.ExitStatus() == 0 {
			return
		}
	}
	syscall.Kill(1, initSignal(mode))
}

// initSignal is what PID 1 takes as the order to end: systemd knows SIGRTMIN+4 and +5, BusyBox
// and others SIGUSR2 and SIGTERM.
func initSignal(mode Mode) syscall.Signal {
	const rtmin = 34
	switch systemd := read("/proc/1/comm") == "systemd"; {
	case systemd && mode == PowerOff:
		return rtmin + 4
	case systemd:
		return rtmin + 5
	case mode == PowerOff:
		return syscall.SIGUSR2
	}
	return syscall.SIGTERM
}

// Halt ends all other processes, writes the disks out and stops the machine. It returns only
// if the kernel refuses.
func Halt(mode Mode) error {
	syscall.Kill(-1, syscall.SIGTERM)
	syscall.Kill(-1, syscall.SIGCONT)
	awaitQuiet(termTimeout)
	syscall.Kill(-1, syscall.SIGKILL)
	flushed := make(chan struct{})
	go func() {
		syscall.Sync()
		remountReadOnly()
		close(flushed)
	}()
	select {
	case <-flushed:
	case <-time.After(syncTimeout): // a file system that hangs must not keep the machine
	}
	if mode == PowerOff && canPowerOff() {
		syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	}
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	return errors.New("the kernel does not let the agent stop the machine")
}

// awaitQuiet waits until only kernel threads, PID 1 and this process are left.
func awaitQuiet(limit time.Duration) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if !othersRun() {
			return
		}
	}
}

func othersRun() bool {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		name := entry.Name()
		if name[0] < '0' || name[0] > '9' || name == "1" || name == selfPID() {
			continue
		}
		// Kernel threads and zombies have no command line.
		if read("/proc/"+name+"/cmdline") != "" {
			return true
		}
	}
	return false
}

func selfPID() string {
	name, _ := os.Readlink("/proc/self")
	return name
}

// remountReadOnly makes the file systems of block devices read-only, the last mounted first.
func remountReadOnly() {
	mounts := strings.Split(read("/proc/mounts"), "\n")
	for i := len(mounts) - 1; i >= 0; i-- {
		words := strings.Fields(mounts[i])
		if len(words) > 1 && strings.HasPrefix(words[0], "/dev/") {
			setReadOnly(words[1])
		}
	}
}

// setReadOnly waits a little where files are still open for writing: a process that was killed
// closes them only when it gets to run.
func setReadOnly(path string) {
	for end := time.Now().Add(busyTimeout); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Mount("", path, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
		if err != syscall.EBUSY || time.Now().After(end) {
			return
		}
	}
}

// canPowerOff tells whether the machine has a way to switch itself off. The ACPI description of
// Firecracker, for one, has none: there Linux would halt and the VMM run on for ever.
func canPowerOff() bool {
	return fadtCanPowerOff([]byte(readRaw("/sys/firmware/acpi/tables/FACP")))
}

// fadtCanPowerOff looks into the Fixed ACPI Description Table: hardware-reduced machines need a
// sleep control register, others have their power management block.
func fadtCanPowerOff(fadt []byte) bool {
	const flagsAt, sleepControlAt, hardwareReduced = 112, 248, 1 << 20
	if len(fadt) < flagsAt+4 {
		return false
	}
	if binary.LittleEndian.Uint32(fadt[flagsAt:])&hardwareReduced == 0 {
		return true
	}
	return len(fadt) >= sleepControlAt+8 && binary.LittleEndian.Uint64(fadt[sleepControlAt:]) != 0
}

func readRaw(path string) string {
	content, _ := os.ReadFile(path)
	return string(content)
}
