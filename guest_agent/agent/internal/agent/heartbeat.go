package agent

import (
	"time"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/system"
)

// heartbeat tells how the guest is.
func (a *Agent) heartbeat(c *call) error {
	load := system.Load()
	memoryTotal, memoryAvailable := system.Memory()
	diskTotal, diskFree := system.Disk(a.System.Path("/"))
	return c.reply(minijson.Object{
		"uptime": system.Uptime(),
		"time":   float64(time.Now().UnixMicro()) / 1e6,
		"load":   minijson.Array{load[0], load[1], load[2]},
		"memory": minijson.Object{"total": memoryTotal, "available": memoryAvailable},
		"disks":  minijson.Array{minijson.Object{"path": "/", "total": diskTotal, "free": diskFree}},
	})
}
