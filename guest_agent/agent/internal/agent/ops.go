package agent

import (
	"io"
)

// operations is what the host can ask for, by the "op" of a stream's header. An operation
// answers with call.reply and may then go on reading and writing call.stream; an error that it
// returns before answering becomes the answer.
var operations = map[string]func(*Agent, *call) error{
	"attach":    (*Agent).attach,
	"configure": (*Agent).configure,
	"connect":   (*Agent).connect,
	"disk":      (*Agent).disk,
	"echo":      (*Agent).echo,
	"exec":      (*Agent).exec,
	"forget":    (*Agent).forget,
	"freeze":    (*Agent).freeze,
	"heartbeat": (*Agent).heartbeat,
	"list":      (*Agent).list,
	"load":      (*Agent).load,
	"mkdir":     changes((*Agent).mkdir),
	"move":      changes((*Agent).move),
	"read":      transfer((*Agent).read),
	"read-tar":  transfer((*Agent).readTar),
	"remove":    changes((*Agent).remove),
	"sessions":  (*Agent).listSessions,
	"shutdown":  (*Agent).shutdown,
	"signal":    (*Agent).signal,
	"start":     (*Agent).start,
	"stat":      (*Agent).stat,
	"thaw":      (*Agent).thaw,
	"upgrade":   changes((*Agent).upgrade),
	"write":     changes(transfer((*Agent).write)),
	"write-tar": changes(transfer((*Agent).writeTar)),
}

// echo sends back what comes, until the host's half-close.
func (a *Agent) echo(c *call) error {
	if err := c.reply(nil); err != nil {
		return err
	}
	_, err := io.Copy(c.stream, c.stream)
	return err
}
