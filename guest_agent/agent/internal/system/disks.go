package system

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const (
	// maxUsers bounds how many users of one disk are told.
	maxUsers = 32
	// maxTargets is how many disks a VM may have; each that is plugged is a target of its own.
	maxTargets = 16
)

// LoadModule hands the module to the kernel.
func (Guest) LoadModule(_ string, image []byte) error {
	var parameters [1]byte
	_, _, errno := syscall.Syscall(syscall.SYS_INIT_MODULE, uintptr(unsafe.Pointer(&image[0])),
		uintptr(len(image)), uintptr(unsafe.Pointer(&parameters)))
	if errno != 0 && errno != syscall.EEXIST {
		return errno
	}
	return nil
}

// LoadModule is written down.
func (s Sandbox) LoadModule(name string, image []byte) error {
	return s.record("load " + name + " " + strconv.Itoa(len(image)))
}

// FindDisk is the device of the SCSI disk with this serial number, "" where there is none (yet).
func FindDisk(s System, serial string) string {
	// Page 0x80 of a disk's vital product data: four bytes of header, then the serial number.
	pages, _ := filepath.Glob(s.Path("/sys/block") + "/*/device/vpd_pg80")
	for _, page := range pages {
		content, err := os.ReadFile(page)
		if err != nil || len(content) < 4 || strings.Trim(string(content[4:]), " \x00") != serial {
			continue
		}
		device := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(page)))
		if _, err := os.Stat(s.Path(device)); err == nil {
			return device
		}
	}
	return ""
}

// LookForDisks has the kernel ask whether disks are at the addresses where a VMM puts them, which
// kernels that Nexus builds do not by themselves.
func LookForDisks(s System) {
	hosts, _ := filepath.Glob(s.Path("/sys/class/scsi_host") + "/*/scan")
	for _, scan := range hosts {
		for target := range maxTargets {
			os.WriteFile(scan, []byte("0 "+strconv.Itoa(target)+" 0"), 0)
		}
	}
}

// ReleaseDisk has the kernel write the disk out and forget it, unless it is used: then it stays,
// and its users are told. The disk is claimed meanwhile, so that nobody begins to use it.
func ReleaseDisk(s System, device string) (users []string, err error) {
	claim, err := syscall.Open(s.Path(device), syscall.O_RDONLY|syscall.O_EXCL|syscall.O_CLOEXEC, 0)
	if err == syscall.EBUSY {
		return diskUsers(s, filepath.Base(device)), nil
	}
	if err != nil {
		return nil, err
	}
	defer syscall.Close(claim)
	forget := s.Path("/sys/block/" + filepath.Base(device) + "/device/delete")
	return nil, os.WriteFile(forget, []byte("1"), 0)
}

// diskUsers are the mount points of the disk and its partitions, and what else holds them.
func diskUsers(s System, name string) []string {
	directory := s.Path("/sys/block/" + name)
	var users []string
	numbers, _ := filepath.Glob(directory + "/" + name + "*/dev")
	for _, number := range append(numbers, directory+"/dev") {
		users = append(users, mountPoints(readRaw(s.Path("/proc/self/mountinfo")), read(number))...)
		holders, _ := filepath.Glob(filepath.Dir(number) + "/holders/*")
		for _, holder := range holders {
			users = append(users, "/dev/"+filepath.Base(holder))
		}
	}
	if len(users) == 0 {
		return []string{"a program of the guest"} // swap, or a mount of another namespace
	}
	slices.Sort(users)
	return users[:min(len(users), maxUsers)]
}

// mountPoints are the places where the device "8:0" is mounted.
func mountPoints(mountinfo, number string) []string {
	var paths []string
	for line := range strings.Lines(mountinfo) {
		if words := strings.Fields(line); len(words) > 4 && words[2] == number {
			paths = append(paths, unescape(words[4]))
		}
	}
	return paths
}
