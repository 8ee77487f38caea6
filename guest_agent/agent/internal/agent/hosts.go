package agent

import (
	"os"
	"strings"
)

// updateHosts is the content of /etc/hosts with name as 127.0.1.1; all other lines stay. The
// loopback's own line is added where it is missing.
func updateHosts(path, name string) ([]byte, error) {
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var lines []string
	loopback, placed := false, false
	for line := range strings.Lines(string(old)) {
		line = strings.TrimSuffix(line, "\n")
		words := strings.Fields(line)
		if len(words) > 0 && words[0] == "127.0.1.1" {
			if placed {
				continue
			}
			line, placed = "127.0.1.1\t"+name, true
		}
		loopback = loopback || len(words) > 0 && words[0] == "127.0.0.1"
		lines = append(lines, line)
	}
	if !loopback {
		lines = append([]string{"127.0.0.1\tlocalhost", "::1\tlocalhost"}, lines...)
	}
	if !placed {
		lines = append(lines, "127.0.1.1\t"+name)
	}
	return []byte(strings.Join(lines, "\n") + "\n"), nil
}
