package boot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"nexus/agent/internal/system"
)

const (
	moduleList      = "/modules"
	moduleDirectory = "/lib/modules"
	newRoot         = "/newroot"
	deviceTimeout   = 10 * time.Second
)

// loadModules loads the kernel modules of the initrd in the order of /modules. One that fails is
// told on the console: if it mattered, mounting the root says so too.
func loadModules() {
	list, _ := os.ReadFile(moduleList)
	for _, name := range strings.Fields(string(list)) {
		if err := loadModule(filepath.Join(moduleDirectory, name)); err != nil {
			complain("module "+name, err)
		}
	}
}

func loadModule(path string) error {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var parameters [1]byte
	_, _, errno := syscall.Syscall(sysFinitModule, uintptr(fd), uintptr(unsafe.Pointer(&parameters)), 0)
	if errno != 0 && errno != syscall.EEXIST {
		return errno
	}
	return nil
}

// enterRoot mounts the root file system and makes it the root of this process.
func enterRoot(device string) error {
	if err := awaitDevice(device); err != nil {
		return err
	}
	kind, _ := system.KernelWord("rootfstype")
	if kind == "" {
		kind = "ext4"
	}
	options, _ := system.KernelWord("rootflags")
	flags, data := mountOptions(options, system.HasKernelWord("ro"))
	os.MkdirAll(newRoot, 0o755)
	if err := syscall.Mount(device, newRoot, kind, flags, data); err != nil {
		return errors.New("mount " + device + " as " + kind + ": " + err.Error())
	}
	for _, kernel := range []string{"/proc", "/sys", "/dev"} {
		if err := syscall.Mount(kernel, newRoot+kernel, "", syscall.MS_MOVE, ""); err != nil {
			return errors.New("the image has no directory " + kernel + ": " + err.Error())
		}
	}
	freeInitrd()
	return switchRoot()
}

func awaitDevice(device string) error {
	if !strings.HasPrefix(device, "/dev/") {
		return errors.New("root=" + device + " must be a path in /dev")
	}
	for end := time.Now().Add(deviceTimeout); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(device); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// mountOptions splits the words of rootflags= into mount flags and what only the file system
// understands.
func mountOptions(options string, readOnly bool) (flags uintptr, data string) {
	known := map[string]uintptr{
		"ro": syscall.MS_RDONLY, "noatime": syscall.MS_NOATIME, "nodiratime": syscall.MS_NODIRATIME,
		"relatime": syscall.MS_RELATIME, "nosuid": nosuid, "nodev": nodev, "noexec": noexec,
		"sync": syscall.MS_SYNCHRONOUS,
	}
	if readOnly {
		flags = syscall.MS_RDONLY
	}
	var rest []string
	for _, word := range strings.Split(options, ",") {
		if flag, ok := known[word]; ok {
			flags |= flag
		} else if word == "rw" {
			flags &^= syscall.MS_RDONLY
		} else if word != "" {
			rest = append(rest, word)
		}
	}
	return flags, strings.Join(rest, ",")
}

// freeInitrd gives the memory of the initrd's files back. The running program stays usable
// through /proc/self/exe.
func freeInitrd() {
	os.RemoveAll(moduleDirectory)
	os.Remove(moduleList)
	os.Remove("/init")
}

// switchRoot moves the new root over the initrd, as switch_root(8) does.
func switchRoot() error {
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return err
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}
