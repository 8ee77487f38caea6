package system

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	maxInterfaces = 32
	maxDevices    = 64
	sectorSize    = 512 // of /proc/diskstats, whatever the disk's own is
)

// MemoryState is the guest's memory, in bytes. Available is what programs could still have.
type MemoryState struct{ Total, Available, SwapTotal, SwapFree uint64 }

// Memory is the memory as it is now.
func Memory() (m MemoryState) {
	fields := map[string]*uint64{
		"MemTotal:": &m.Total, "MemAvailable:": &m.Available, "SwapTotal:": &m.SwapTotal, "SwapFree:": &m.SwapFree,
	}
	for line := range strings.Lines(read("/proc/meminfo")) {
		words := strings.Fields(line)
		if len(words) > 1 && fields[words[0]] != nil {
			*fields[words[0]] = number(words[1]) << 10
		}
	}
	return m
}

// Ticks is what all processors have done since the kernel started, in hundredths of a second.
type Ticks struct {
	User, System, Idle, IOWait, Steal uint64
	Count                             int // processors
}

// CPU is what the processors have done until now.
func CPU() Ticks { return parseCPU(readRaw("/proc/stat")) }

func parseCPU(text string) (t Ticks) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 9 || !strings.HasPrefix(words[0], "cpu") {
			continue
		}
		if words[0] != "cpu" {
			t.Count++
			continue
		}
		var n [8]uint64
		for i := range n {
			n[i] = number(words[i+1])
		}
		t.User, t.System = n[0]+n[1], n[2]+n[5]+n[6]
		t.Idle, t.IOWait, t.Steal = n[3], n[4], n[7]
	}
	return t
}

// Traffic is what a network interface has carried. The arrays are received, sent.
type Traffic struct {
	Name                          string
	Bytes, Packets, Errors, Drops [2]uint64
}

// Network is the traffic of every interface but the loopback.
func Network() []Traffic { return parseNetwork(readRaw("/proc/net/dev")) }

func parseNetwork(text string) (all []Traffic) {
	for line := range strings.Lines(text) {
		name, counts, found := strings.Cut(line, ":")
		words := strings.Fields(counts)
		name = strings.TrimSpace(name)
		if !found || len(words) < 16 || name == "lo" || len(all) == maxInterfaces {
			continue
		}
		pair := func(i int) [2]uint64 { return [2]uint64{number(words[i]), number(words[8+i])} }
		all = append(all, Traffic{name, pair(0), pair(1), pair(2), pair(3)})
	}
	return all
}

// Work is what a disk has done. The arrays are read, written.
type Work struct {
	Device            string
	Bytes, Operations [2]uint64
}

// Disks is the work of every whole disk; partitions and disks made of files count as no disks.
func Disks(s System) []Work {
	var names []string
	if directory, err := os.Open(s.Path("/sys/block")); err == nil {
		names, _ = directory.Readdirnames(-1)
		directory.Close()
	}
	return parseDisks(readRaw(s.Path("/proc/diskstats")), names)
}

func parseDisks(text string, whole []string) (all []Work) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 10 || len(all) == maxDevices || !slices.Contains(whole, words[2]) ||
			strings.HasPrefix(words[2], "loop") || strings.HasPrefix(words[2], "ram") {
			continue
		}
		all = append(all, Work{
			Device:     words[2],
			Bytes:      [2]uint64{number(words[5]) * sectorSize, number(words[9]) * sectorSize},
			Operations: [2]uint64{number(words[3]), number(words[7])},
		})
	}
	return all
}

// Processes is how many the guest has.
func Processes() (count int) {
	directory, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	defer directory.Close()
	names, _ := directory.Readdirnames(-1)
	for _, name := range names {
		if name[0] >= '0' && name[0] <= '9' {
			count++
		}
	}
	return count
}

func number(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}
