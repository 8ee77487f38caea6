package system

import (
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	clockRealtime   = 0
	ioctlAddEntropy = 0x40085203 // RNDADDENTROPY
	ioctlReseed     = 0x5207     // RNDRESEEDCRNG
)

// SetHostname sets the kernel's host name.
func (Guest) SetHostname(name string) error { return syscall.Sethostname([]byte(name)) }

// SetTime sets the clock of the wall.
func (Guest) SetTime(now time.Time) error {
	ts := syscall.NsecToTimespec(now.UnixNano())
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_SETTIME, clockRealtime, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// AddEntropy mixes entropy into the kernel's random numbers, counts every bit of it, and makes
// the generator use it at once. Without it machines resumed from one memory image repeat
// one another's random numbers.
func (Guest) AddEntropy(entropy []byte) error {
	fd, err := syscall.Open("/dev/urandom", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var pool struct { // struct rand_pool_info
		bits, size int32
		bytes      [512]byte
	}
	pool.size = int32(copy(pool.bytes[:], entropy))
	pool.bits = 8 * pool.size
	if err := ioctl(fd, ioctlAddEntropy, unsafe.Pointer(&pool)); err != nil {
		return err
	}
	return ioctl(fd, ioctlReseed, nil)
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) error {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(argument))
	if errno != 0 {
		return errno
	}
	return nil
}

// SetHostname is written down.
func (s Sandbox) SetHostname(name string) error { return s.record("hostname " + name) }

// SetTime is written down, in nanoseconds.
func (s Sandbox) SetTime(now time.Time) error {
	return s.record("time " + strconv.FormatInt(now.UnixNano(), 10))
}

// AddEntropy is written down: the number of bytes.
func (s Sandbox) AddEntropy(entropy []byte) error {
	return s.record("entropy " + strconv.Itoa(len(entropy)))
}
