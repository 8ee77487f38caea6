package boot

import (
	"os"
	"syscall"
)

const (
	nosuid = syscall.MS_NOSUID
	noexec = syscall.MS_NOEXEC
	nodev  = syscall.MS_NODEV
)

type mount struct {
	kind, target string
	flags        uintptr
	data         string
}

// mountKernelFileSystems mounts what every init finds mounted or mounts itself. The agent gives
// terminals before an init has come so far as to mount what they need.
func mountKernelFileSystems() {
	mountAll(
		mount{"devtmpfs", "/dev", nosuid, "mode=0755"},
		mount{"devpts", "/dev/pts", nosuid | noexec, "gid=5,mode=620,ptmxmode=666"},
		mount{"proc", "/proc", nosuid | noexec | nodev, ""},
		mount{"sysfs", "/sys", nosuid | noexec | nodev, ""},
	)
}

// mountForPrograms mounts what programs expect and, without an init, nobody else mounts.
func mountForPrograms() {
	mountAll(
		mount{"tmpfs", "/dev/shm", nosuid | nodev, "mode=1777"},
		mount{"tmpfs", "/run", nosuid | nodev, "mode=0755"},
		mount{"cgroup2", "/sys/fs/cgroup", nosuid | noexec | nodev, ""},
	)
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2",
	} {
		os.Symlink(target, name)
	}
}

// mountAll mounts what it can: a kernel may lack one of them, and a read-only root a directory.
func mountAll(mounts ...mount) {
	for _, m := range mounts {
		os.MkdirAll(m.target, 0o755)
		err := syscall.Mount(m.kind, m.target, m.kind, m.flags, m.data)
		if err != nil && err != syscall.EBUSY && err != syscall.ENODEV {
			complain("cannot mount "+m.target, err)
		}
	}
}
