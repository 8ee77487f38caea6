package agent

import (
	"errors"
	"os"
	"strings"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/system"
)

const (
	hostsBegin = "# Nexus: these lines are the VM's setting"
	hostsEnd   = "# Nexus: end"
	maxHosts   = 1024
)

// setHosts replaces the lines that the host has put into /etc/hosts.
func (a *Agent) setHosts(request minijson.Object) error {
	lines, err := request.Texts("hosts")
	if err != nil {
		return err
	}
	if len(lines) > maxHosts {
		return errors.New("too many lines")
	}
	for _, line := range lines {
		if !validHostLine(line) {
			return errors.New("not an address and names: " + line)
		}
	}
	path := a.System.Path("/etc/hosts")
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	return system.WriteFile(path, []byte(replaceBlock(string(old), lines)), 0o644)
}

func validHostLine(line string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._: \t"
	words := strings.Fields(line)
	return strings.Trim(line, letters) == "" && len(words) > 1 && strings.ContainsAny(words[0], ".:") &&
		strings.Trim(words[0], "0123456789abcdefABCDEF.:") == "" &&
		!strings.Contains(strings.Join(words[1:], ""), ":")
}

// replaceBlock is the text with lines in the place of those between the marks.
func replaceBlock(text string, lines []string) string {
	before, rest, there := strings.Cut(text, hostsBegin+"\n")
	after := ""
	if there {
		_, after, _ = strings.Cut(rest, hostsEnd+"\n")
	}
	if len(lines) == 0 {
		return before + after
	}
	if before != "" && !strings.HasSuffix(before, "\n") {
		before += "\n"
	}
	return before + hostsBegin + "\n" + strings.Join(lines, "\n") + "\n" + hostsEnd + "\n" + after
}

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
