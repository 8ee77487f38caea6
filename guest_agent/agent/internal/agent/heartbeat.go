package agent

import (
	"time"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/system"
)

// heartbeat tells how the guest is.
func (a *Agent) heartbeat(c *call) error {
	load := system.Load()
	memory := system.Memory()
	diskTotal, diskFree := system.Disk(a.System.Path("/"))
	cpu := system.CPU()
	return c.reply(minijson.Object{
		"uptime": system.Uptime(),
		"time":   float64(time.Now().UnixMicro()) / 1e6,
		"load":   minijson.Array{load[0], load[1], load[2]},
		"memory": minijson.Object{
			"total": memory.Total, "available": memory.Available,
			"swap_total": memory.SwapTotal, "swap_free": memory.SwapFree,
		},
		"disks": minijson.Array{minijson.Object{"path": "/", "total": diskTotal, "free": diskFree}},
		"cpu": minijson.Object{
			"user": cpu.User, "system": cpu.System, "idle": cpu.Idle, "iowait": cpu.IOWait,
			"steal": cpu.Steal, "count": cpu.Count,
		},
		"network":   traffic(),
		"io":        a.work(),
		"processes": system.Processes(),
	})
}

func traffic() minijson.Array {
	all := minijson.Array{}
	for _, t := range system.Network() {
		all = append(all, minijson.Object{
			"name":     t.Name,
			"rx_bytes": t.Bytes[0], "rx_packets": t.Packets[0], "rx_errors": t.Errors[0], "rx_drops": t.Drops[0],
			"tx_bytes": t.Bytes[1], "tx_packets": t.Packets[1], "tx_errors": t.Errors[1], "tx_drops": t.Drops[1],
		})
	}
	return all
}

func (a *Agent) work() minijson.Array {
	all := minijson.Array{}
	for _, w := range system.Disks(a.System) {
		all = append(all, minijson.Object{
			"device":     w.Device,
			"read_bytes": w.Bytes[0], "reads": w.Operations[0],
			"write_bytes": w.Bytes[1], "writes": w.Operations[1],
		})
	}
	return all
}
