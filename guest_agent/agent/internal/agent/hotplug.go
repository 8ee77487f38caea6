package agent

import (
	"io"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/system"
)

const (
	maxModule = 16 << 20
	maxName   = 64
)

// load puts a kernel module into the running kernel: "size" bytes that follow the header.
func (a *Agent) load(c *call) error {
	name, nameErr := c.request.Text("name")
	size, sizeErr := c.request.Number("size")
	if nameErr != nil || sizeErr != nil || len(name) > maxName || size < 1 || size > maxModule {
		return c.refuse("invalid", "a module has a name and a size of at most 16 MiB")
	}
	image := make([]byte, int(size))
	if _, err := io.ReadFull(c.stream, image); err != nil {
		return err
	}
	if err := a.System.LoadModule(name, image); err != nil {
		return c.refuse("failed", "module "+name+": "+err.Error())
	}
	return c.reply(nil)
}

// disk finds the SCSI disk of a serial number; with "release" it gives it up, unless it is used.
func (a *Agent) disk(c *call) error {
	serial, err := c.request.Text("serial")
	if err != nil || serial == "" || len(serial) > maxName {
		return c.refuse("invalid", "a disk is named by its serial number")
	}
	release, err := c.request.Bool("release")
	if err != nil {
		return c.refuse("invalid", err.Error())
	}
	device := system.FindDisk(a.System, serial)
	if device == "" && !release {
		system.LookForDisks(a.System)
		device = system.FindDisk(a.System, serial)
	}
	used := minijson.Array{}
	if device != "" && release {
		users, err := system.ReleaseDisk(a.System, device)
		if err != nil {
			return err
		}
		for _, user := range users {
			used = append(used, user)
		}
	}
	return c.reply(minijson.Object{"device": device, "used_by": used})
}
