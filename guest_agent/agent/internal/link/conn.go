package link

import (
	"os"
	"time"
)

// backWait is how long a port's host may be away until it has left for good. A guest that goes on
// from memory is told that its host is gone and, as soon as Nexus is there, that one has come.
const backWait = time.Second

// Conn is a connection to the host.
type Conn struct {
	*os.File
	port bool
}

// Back is for a connection that came to its end: whether a host is there again, on the same
// connection. It waits a moment for one. Whoever opens the port anew in place of this throws away
// what that host has said meanwhile, and it does not say it twice.
func (c *Conn) Back() (back bool) {
	if !c.port {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	c.SetReadDeadline(time.Now().Add(backWait))
	defer c.SetReadDeadline(time.Time{})
	raw.Read(func(fd uintptr) bool {
		back = hostThere(int(fd))
		return back
	})
	return back
}
