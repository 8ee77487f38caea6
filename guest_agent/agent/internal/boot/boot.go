// Package boot is the agent as the guest's first process.
package boot

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"nexus/agent/internal/system"
)

const (
	searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Run brings the guest up: the kernel's file systems, in an initrd its modules and the root file
// system, then the agent, which says hello while the distribution's init starts.
// It does not return.
func Run() {
	mountKernelFileSystems()
	rootMounted := 0.0
	if inInitrd() {
		loadModules()
		if root, there := system.KernelWord("root"); there && root != "none" {
			if err := enterRoot(root); err != nil {
				fatal("cannot use the root file system", err)
			}
			rootMounted = system.Uptime()
		}
	}
	init := findInit()
	if init == "" {
		mountForPrograms()
		system.LoopbackUp()
		supervise("none", rootMounted)
	}
	if _, err := spawnAgent(init, rootMounted); err != nil {
		complain("cannot start the agent", err)
	}
	err := syscall.Exec(init, append([]string{init}, os.Args[1:]...), os.Environ())
	fatal("cannot run "+init, err)
}

// inInitrd tells whether the root is the memory that the kernel unpacked the initrd into.
func inInitrd() bool {
	const ramfs, tmpfs = 0x858458f6, 0x01021994
	var stat syscall.Statfs_t
	if syscall.Statfs("/", &stat) != nil {
		return false
	}
	return stat.Type == ramfs || stat.Type == tmpfs
}

// findInit is the init program to go on with; "" to stay the first process.
func findInit() string {
	wanted, _ := system.KernelWord("nexus.init")
	switch {
	case wanted == "none" || inInitrd():
		return ""
	case wanted != "":
		return wanted
	}
	for _, path := range []string{
		"/sbin/init", "/usr/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd",
		"/sbin/openrc-init", "/bin/init", "/etc/init",
	} {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// spawnAgent starts this program as the agent. From an initrd that is the one that came with
// Nexus, not the image's, which may be older; and its pages are in memory already, while the
// image's would be read from the disk.
func spawnAgent(init string, rootMounted float64) (pid int, err error) {
	arguments := []string{
		"nexus-agent", "agent", "--init", init,
		"--root-mounted", strconv.FormatFloat(rootMounted, 'f', 3, 64),
	}
	attributes := &syscall.ProcAttr{
		Dir: "/", Env: append(os.Environ(), searchPath), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	return syscall.ForkExec("/proc/self/exe", arguments, attributes)
}

func complain(what string, err error) { fmt.Fprintf(os.Stderr, "nexus-agent: %s: %v\n", what, err) }

// fatal ends the guest: its last line on the console says why.
func fatal(what string, err error) {
	complain(what, err)
	system.Halt(system.Restart)
	os.Exit(1)
}
