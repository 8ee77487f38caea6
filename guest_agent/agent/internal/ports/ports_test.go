package ports

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// listening is a listener on an address, and its port.
func listening(t *testing.T, network, address string) (net.Listener, int) {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener, listener.Addr().(*net.TCPAddr).Port
}

// met is the two ends of a connection: the agent's and the program's.
func met(t *testing.T, network, address string) (Conn, net.Conn) {
	t.Helper()
	listener, port := listening(t, network, address)
	conn, err := Dial(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	program, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	program.SetDeadline(time.Now().Add(time.Minute))
	conn.SetDeadline(time.Now().Add(time.Minute))
	return conn, program
}

func TestEachDirectionEndsByItself(t *testing.T) {
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"} {
		conn, program := met(t, network, address)
		io.WriteString(conn, "to the program")
		conn.CloseWrite()
		if said, err := io.ReadAll(program); err != nil || string(said) != "to the program" {
			t.Error(network, string(said), err)
		}
		io.WriteString(program, "and back")
		program.Close()
		if said, err := io.ReadAll(conn); err != nil || string(said) != "and back" {
			t.Error(network, string(said), err)
		}
	}
}

func TestWhatIsAbortedIsNotTakenForAll(t *testing.T) {
	conn, program := met(t, "tcp4", "127.0.0.1:0")
	io.WriteString(conn, "half of i")
	conn.Abort()
	if _, err := io.ReadAll(program); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

func TestNobodyListens(t *testing.T) {
	listener, port := listening(t, "tcp4", "127.0.0.1:0")
	listener.Close()
	for range 50 {
		if conn, err := Dial(port); err != syscall.ECONNREFUSED {
			t.Fatal(conn, err)
		}
	}
}

// Without a listener an end can meet itself, where the kernel gives it the port that it dials.
func TestAnEndThatMeetsItselfIsRefused(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	own := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := syscall.Bind(fd, own); err != nil {
		t.Fatal(err)
	}
	name, _ := syscall.Getsockname(fd)
	if err := syscall.Connect(fd, name); err != nil {
		t.Fatal(err)
	}
	if known, err := outcome(fd); !known || err != syscall.ECONNREFUSED {
		t.Error(known, err)
	}
}

// The kernel lets a program that does not accept wait with as many connections as it said.
func TestAProgramThatAcceptsNothing(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, _ := syscall.Getsockname(fd)
	dials := make(chan error, 3)
	for range 3 {
		go func() {
			conn, err := Dial(portOf(name))
			if err == nil {
				defer conn.Close()
			}
			dials <- err
		}()
	}
	if err := <-dials; err != nil { // one waits in the queue; what waits for room holds up nobody
		t.Error(err)
	}
}
