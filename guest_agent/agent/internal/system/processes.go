package system

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// process is what /proc says of one.
type process struct {
	pid, parent int
	name        string
}

// Reload sends SIGHUP to the daemons of this name: an sshd starts itself anew then, in its place,
// whatever init has started it. What a daemon has started to serve somebody is left alone.
func (Guest) Reload(daemon string) {
	for _, pid := range daemons(processes(), daemon) {
		syscall.Kill(pid, syscall.SIGHUP)
	}
}

// daemons are the processes of this name that no other one of it has started.
func daemons(all []process, name string) (pids []int) {
	named := map[int]bool{}
	for _, p := range all {
		named[p.pid] = p.name == name
	}
	for _, p := range all {
		if named[p.pid] && !named[p.parent] {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

func processes() (all []process) {
	directory, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer directory.Close()
	names, _ := directory.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := parseProcess(pid, read("/proc/"+name+"/stat")); ok {
				all = append(all, p)
			}
		}
	}
	return all
}

// parseProcess reads a line like "12 (a (b) c) S 1 …".
func parseProcess(pid int, stat string) (p process, ok bool) {
	begin, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if begin < 0 || end < begin {
		return p, false
	}
	words := strings.Fields(stat[end+1:])
	if len(words) < 2 {
		return p, false
	}
	parent, err := strconv.Atoi(words[1])
	return process{pid, parent, stat[begin+1 : end]}, err == nil
}

// Reload is written down.
func (s Sandbox) Reload(daemon string) { s.record("reload " + daemon) }
