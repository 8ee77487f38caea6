// Package boot is the agent as the guest's first process.
package boot

import (
	"os"
	"strconv"
	"syscall"

	"nexus/agent/internal/identity"
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
	os.Remove(system.BootIDFile) // of an earlier boot, where nothing is mounted over it
	g := newGuest(findInit(), rootMounted)
	if g.init == "none" {
		mountForPrograms()
		system.LoopbackUp()
		g.supervise()
	}
	if _, err := g.startAgent(); err != nil {
		complain("cannot start the agent", err)
	}
	// Init comes to see only the new identity; the host hears the agent meanwhile.
	if pid := g.renewIdentity(); pid != 0 {
		reapUntil(pid)
	}
	err := syscall.Exec(g.init, append([]string{g.init}, os.Args[1:]...), os.Environ())
	fatal("cannot run "+g.init, err)
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

// findInit is the init program to go on with; "none" to stay the first process.
func findInit() string {
	wanted, _ := system.KernelWord("nexus.init")
	switch {
	case wanted == "none" || inInitrd():
		return "none"
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
	return "none"
}

// guest is what the first process knows of the guest, and tells the agent.
type guest struct {
	init        string // "none" where the first process stays
	rootMounted float64
	id          string // whom the host takes the guest for
	identity    string // whether it is that one: a word of package identity
}

func newGuest(init string, rootMounted float64) guest {
	g := guest{init: init, rootMounted: rootMounted, identity: identity.None}
	g.id, _ = system.KernelWord(identity.KernelWord)
	if !inInitrd() {
		g.identity = identity.State(system.Guest{}, g.id)
	}
	return g
}

// startAgent starts this program as the agent.
func (g guest) startAgent() (pid int, err error) {
	return start("agent", "--init", g.init, "--identity", g.identity,
		"--root-mounted", strconv.FormatFloat(g.rootMounted, 'f', 3, 64))
}

// renewIdentity starts to give the guest its own identity, where it has another one's.
func (g guest) renewIdentity() (pid int) {
	if g.identity != identity.New {
		return 0
	}
	pid, err := start("identity", "--id", g.id)
	if err != nil {
		complain("cannot give the guest an identity", err)
	}
	return pid
}

// start runs this program. From an initrd that is the one that came with Nexus, not the image's,
// which may be older; and its pages are in memory already, while the image's would be read from
// the disk.
func start(arguments ...string) (pid int, err error) {
	attributes := &syscall.ProcAttr{
		Dir: "/", Env: append(os.Environ(), searchPath), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	return syscall.ForkExec("/proc/self/exe", append([]string{"nexus-agent"}, arguments...), attributes)
}

func complain(what string, err error) { system.Complain(what, err.Error()) }

// fatal ends the guest: its last line on the console says why.
func fatal(what string, err error) {
	complain(what, err)
	system.Halt(system.Restart)
	os.Exit(1)
}
