package system

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const maxFactFile = 16 << 10

// read is the start of a small file, without the white space around it; "" if it cannot be read.
func read(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	buffer := make([]byte, maxFactFile)
	n := 0
	for n < len(buffer) {
		m, err := file.Read(buffer[n:])
		n += m
		if err != nil || m == 0 {
			break
		}
	}
	return strings.TrimSpace(string(buffer[:n]))
}

// Uptime is the number of seconds since the kernel started.
func Uptime() float64 {
	const clockBoottime = 7
	var ts syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0)
	return float64(ts.Sec) + float64(ts.Nsec)/1e9
}

// Arch is the machine's name as uname gives it.
func Arch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// KernelRelease is what uname -r prints.
func KernelRelease() string {
	names := uname()
	return text(names.Release[:])
}

// Hostname is the kernel's host name; "" where nobody has set one.
func Hostname() string {
	names := uname()
	if name := text(names.Nodename[:]); name != "(none)" {
		return name
	}
	return ""
}

// uname asks the kernel itself: files, even those in /proc, cost a guest that has just been resumed
// ten times as long, which says its host name before all else.
func uname() (names syscall.Utsname) {
	syscall.Uname(&names)
	return names
}

// text is what stands before the first zero. Characters are signed or not by architecture.
func text[T int8 | uint8](characters []T) string {
	bytes := make([]byte, 0, len(characters))
	for _, c := range characters {
		if c == 0 {
			break
		}
		bytes = append(bytes, byte(c))
	}
	return string(bytes)
}

// BootIDFile has the name that the host gave to what a guest does after it was copied while it
// ran. It is gone with a boot: it lies in memory, or the first process removes it.
const BootIDFile = "/run/nexus/boot-id"

// BootID is the kernel's random name for this boot, or the host's.
func BootID(s System) string {
	if id := read(s.Path(BootIDFile)); validUUID(id) {
		return id
	}
	return read("/proc/sys/kernel/random/boot_id")
}

// SetBootID makes id the one that BootID gives.
func SetBootID(s System, id string) error {
	if !validUUID(id) {
		return errors.New("not a UUID: " + id)
	}
	return WriteFile(s.Path(BootIDFile), []byte(id+"\n"), 0o644)
}

func validUUID(text string) bool {
	const form = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
	if len(text) != len(form) {
		return false
	}
	for i, r := range text {
		if form[i] == '-' && r != '-' || form[i] == 'x' && !strings.ContainsRune("0123456789abcdef", r) {
			return false
		}
	}
	return true
}

// OSName is the distribution's name for people, from os-release.
func OSName(s System) string {
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		for line := range strings.Lines(read(s.Path(path))) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
				return strings.Trim(name, `"'`)
			}
		}
	}
	return ""
}

// ImageMetadata is what /etc/nexus/image.yaml says: lines of "key: value".
func ImageMetadata(s System) map[string]string {
	metadata := map[string]string{}
	for line := range strings.Lines(read(s.Path("/etc/nexus/image.yaml"))) {
		key, value, ok := strings.Cut(line, ":")
		if ok && !strings.HasPrefix(key, "#") {
			metadata[strings.TrimSpace(key)] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return metadata
}

// KernelWord is the value of key= on the kernel's command line, and whether it is there.
// Of several the last one counts.
func KernelWord(key string) (value string, there bool) {
	for _, word := range strings.Fields(read("/proc/cmdline")) {
		if v, ok := strings.CutPrefix(word, key+"="); ok {
			value, there = v, true
		}
	}
	return value, there
}

// HasKernelWord tells whether a word without a value is on the kernel's command line.
func HasKernelWord(word string) bool {
	for _, w := range strings.Fields(read("/proc/cmdline")) {
		if w == word {
			return true
		}
	}
	return false
}

// Load is the load average of 1, 5 and 15 minutes.
func Load() (load [3]float64) {
	for i, word := range strings.Fields(read("/proc/loadavg")) {
		if i < len(load) {
			load[i], _ = strconv.ParseFloat(word, 64)
		}
	}
	return load
}

// Disk is the size of the file system at path and what unprivileged users may still write.
func Disk(path string) (total, free uint64) {
	var stat syscall.Statfs_t
	if syscall.Statfs(path, &stat) != nil {
		return 0, 0
	}
	return stat.Blocks * uint64(stat.Bsize), stat.Bavail * uint64(stat.Bsize)
}

// InitName names the init program at path, after its links: systemd, openrc, busybox, or the
// name of its file.
func InitName(path string) string {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		target = path
	}
	name := filepath.Base(target)
	if name == "systemd" {
		return name
	}
	if _, err := os.Stat("/sbin/openrc"); err == nil {
		return "openrc"
	}
	return name
}
