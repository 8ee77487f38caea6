package agent

import (
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/program"
)

// DefaultLock is the abstract Unix socket that the one agent of a guest holds. Another, which the
// distribution's init starts as a service, connects to it and so learns at once when the first
// one ends.
const DefaultLock = "@nexus-agent"

// maxWaiting bounds the agents that wait for this one's end.
const maxWaiting = 16

// Lock is the socket, once it is held, and the connections of the agents that wait. All stay open
// for as long as there is an agent, also when another takes over as the same process.
type Lock struct {
	fd    int
	mutex sync.Mutex
	peers []int
}

// Hold waits until this process is the guest's agent.
func Hold(name string) (*Lock, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: name})
		if err == nil {
			break
		}
		if err != syscall.EADDRINUSE {
			return nil, err
		}
		awaitEnd(name)
		renew()
		time.Sleep(10 * time.Millisecond)
	}
	return &Lock{fd: fd}, syscall.Listen(fd, 4)
}

// renew runs the agent that was put in the place of this one while it waited.
func renew() {
	exe, err := os.Readlink("/proc/self/exe")
	if path, replaced := strings.CutSuffix(exe, " (deleted)"); err == nil && replaced {
		program.Replace(path, os.Args, nil)
	}
}

// awaitEnd returns when the process that holds the lock has ended.
func awaitEnd(name string) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	if syscall.Connect(fd, &syscall.SockaddrUnix{Name: name}) != nil {
		return
	}
	var nothing [1]byte
	for {
		if _, err := syscall.Read(fd, nothing[:]); err != syscall.EINTR {
			return
		}
	}
}

// Watch accepts waiting agents for ever. A process of root that connects is the service, and its
// init has come so far: settled is called.
func (l *Lock) Watch(settled func()) {
	for {
		peer, _, err := syscall.Accept4(l.fd, syscall.SOCK_CLOEXEC)
		if err == syscall.EINTR || err == syscall.ECONNABORTED {
			continue
		}
		if err != nil {
			return
		}
		who, err := syscall.GetsockoptUcred(peer, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err != nil || who.Uid != 0 {
			syscall.Close(peer)
			continue
		}
		l.add(peer)
		settled()
	}
}

// add keeps a connection; the oldest goes where there are too many.
func (l *Lock) add(peer int) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if len(l.peers) == maxWaiting {
		syscall.Close(l.peers[0])
		l.peers = l.peers[1:]
	}
	l.peers = append(l.peers, peer)
}

// files is everything that must stay open.
func (l *Lock) files() []int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return append([]int{l.fd}, l.peers...)
}

// waiting is the connections, for the agent that takes over.
func (l *Lock) waiting() (peers minijson.Array) {
	for _, fd := range l.files()[1:] {
		peers = append(peers, fd)
	}
	return peers
}

// keepPrivate closes the files to programs again that were open for the agent that took over.
func (l *Lock) keepPrivate() {
	for _, fd := range l.files() {
		syscall.CloseOnExec(fd)
	}
}
