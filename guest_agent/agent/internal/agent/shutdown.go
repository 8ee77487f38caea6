package agent

import (
	"time"

	"nexus/agent/internal/system"
)

const (
	defaultGrace = 60 * time.Second
	maxGrace     = 600 * time.Second
)

// shutdown answers first and then ends the guest; init has "grace" seconds for its own way.
func (a *Agent) shutdown(c *call) error {
	text, err := c.request.Text("mode")
	if err != nil {
		return err
	}
	mode := system.Mode(text)
	if mode != system.PowerOff && mode != system.Restart {
		return c.refuse("invalid", "the mode is poweroff or reboot")
	}
	seconds, err := c.request.Number("grace")
	if err != nil {
		return err
	}
	grace := defaultGrace
	if seconds > 0 && seconds <= maxGrace.Seconds() {
		grace = time.Duration(seconds * float64(time.Second))
	}
	// A host that hung up at once has still asked for it.
	answer := c.reply(nil)
	a.endFrost() // init writes on its way down
	go func() {
		if err := a.System.Shutdown(mode, a.Init != "none", grace); err != nil {
			system.Complain("shutdown", err.Error())
		}
	}()
	return answer
}
