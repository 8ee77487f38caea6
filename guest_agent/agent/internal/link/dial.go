package link

import (
	"errors"
	"os"
	"time"
)

const (
	hostPort = 1024 // the vsock port on which the host listens
	minWait  = 10 * time.Millisecond
	maxWait  = 100 * time.Millisecond
	// A port wakes the agent when its host comes; only vsock must be tried again and again.
	portWaitAlone = time.Second
)

var errNoHost = errors.New("no host")

// Dialer opens connections to the host.
type Dialer struct {
	// Port is the name of the virtio-serial port.
	Port string
	// Unix, where it is set, is a Unix socket to dial and nothing else (tests).
	Unix string
}

// Dial tries vsock and the virtio-serial port, again and again, until there is a host.
func (d Dialer) Dial() *Conn {
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		if file, err := d.try(wait); err == nil {
			return file
		}
	}
}

// try looks for the host once and waits up to wait where there is none.
func (d Dialer) try(wait time.Duration) (*Conn, error) {
	if d.Unix != "" {
		file, err := dialUnix(d.Unix)
		if err != nil {
			time.Sleep(wait)
		}
		return &Conn{File: file}, err
	}
	// Without the device file no driver is there, and asking for a socket would make the kernel
	// run modprobe, every time.
	portWait := portWaitAlone
	if _, err := os.Stat("/dev/vsock"); err == nil {
		if file, err := dialVsock(hostCID, hostPort); err == nil {
			return &Conn{File: file}, nil
		}
		portWait = wait
	}
	file, err := openPort(d.Port, portWait)
	if err == errNoHost {
		return nil, err // openPort has waited
	}
	if err != nil {
		time.Sleep(wait)
	}
	return &Conn{File: file, port: true}, err
}
