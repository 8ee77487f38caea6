package agent

import (
	"io"
)

// operations is what the host can ask for, by the "op" of a stream's header. An operation
// answers with call.reply and may then go on reading and writing call.stream; an error that it
// returns before answering becomes the answer.
var operations = map[string]func(*Agent, *call) error{
	"configure": (*Agent).configure,
	"disk":      (*Agent).disk,
	"echo":      (*Agent).echo,
	"exec":      (*Agent).exec,
	"freeze":    (*Agent).freeze,
	"heartbeat": (*Agent).heartbeat,
	"load":      (*Agent).load,
	"shutdown":  (*Agent).shutdown,
	"thaw":      (*Agent).thaw,
}

// echo sends back what comes, until the host's half-close.
func (a *Agent) echo(c *call) error {
	if err := c.reply(nil); err != nil {
		return err
	}
	_, err := io.Copy(c.stream, c.stream)
	return err
}
