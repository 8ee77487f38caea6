package agent

import (
	"errors"
	"io"
	"math"
	"os"
	"strconv"
	"sync"
	"syscall"

	"nexus/agent/internal/ports"
	"nexus/agent/internal/yamux"
)

const (
	maxConnections = 64
	maxPort        = 65535
	relayPiece     = 32 << 10 // bytes; a frame of a stream
)

// connect relays a TCP connection to a program of this guest, for as long as both ends want it.
func (a *Agent) connect(c *call) error {
	defer a.connections.Add(-1)
	if a.connections.Add(1) > maxConnections {
		return c.refuse("busy", "as many connections are open as the agent can mind: "+strconv.Itoa(maxConnections))
	}
	if a.leaving.Load() {
		return c.refuse("busy", errLeaving)
	}
	port, err := c.request.Number("port")
	if err != nil || port < 1 || port > maxPort || port != math.Trunc(port) {
		return c.refuse("bad-port", "the field port must be 1 to "+strconv.Itoa(maxPort))
	}
	conn, err := ports.Dial(int(port))
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrDeadlineExceeded) {
		return c.refuse("refused", "nobody takes connections on port "+strconv.Itoa(int(port)))
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := c.reply(nil); err != nil {
		conn.Abort()
		return err
	}
	relay(c.stream, conn)
	return nil
}

// relay carries bytes both ways; each direction ends by itself, with a half-close.
func relay(stream *yamux.Stream, conn ports.Conn) {
	var refused error
	var other sync.WaitGroup
	other.Go(func() { refused = toProgram(conn, stream) })
	if err := copyPieces(stream, conn); err != nil {
		stream.Reset() // what has come is not all
	}
	stream.CloseWrite()
	other.Wait()
	if refused != nil { // only now: what the program had said before had to get to the host
		stream.Reset()
	}
}

// toProgram gives the program what the host sends; an error where it does not take it.
func toProgram(conn ports.Conn, stream *yamux.Stream) error {
	err := copyPieces(conn, stream)
	var refused *os.PathError
	switch {
	case err == nil:
		conn.CloseWrite()
	case !errors.As(err, &refused): // it was the stream: the host is gone, or gives up
		conn.Abort()
	}
	return err
}

func copyPieces(to io.Writer, from io.Reader) error {
	// Without its shortcuts, which the runtime takes for files.
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, relayPiece))
	return err
}
