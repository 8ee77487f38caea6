package agent

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/system"
)

const (
	envPath     = "/etc/nexus/env"
	profilePath = "/etc/profile.d/nexus.sh"
	// profile gives login shells the variables, where their user may read them.
	profile = "[ ! -r " + envPath + " ] || { set -a; . " + envPath + "; set +a; }\n"
	maxEnv  = 256 << 10
)

// setEnv writes the variables in the form that a shell can source.
func (a *Agent) setEnv(request minijson.Object) error {
	env, err := request.Object("env")
	if err != nil {
		return err
	}
	lines := make([]string, 0, len(env))
	for name := range env {
		value, err := env.Text(name)
		if err != nil {
			return err
		}
		if !validVariable(name) || strings.ContainsRune(value, 0) {
			return errors.New("not a variable: " + name)
		}
		lines = append(lines, name+"='"+strings.ReplaceAll(value, "'", `'\''`)+"'\n")
	}
	slices.Sort(lines)
	return errors.Join(
		system.WriteFile(a.System.Path(envPath), []byte(strings.Join(lines, "")), 0o600),
		system.WriteFile(a.System.Path(profilePath), []byte(profile), 0o644),
	)
}

func validVariable(name string) bool {
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// savedEnv are the variables that setEnv wrote.
func savedEnv(s system.System) map[string]string {
	file, err := os.Open(s.Path(envPath))
	if err != nil {
		return nil
	}
	defer file.Close()
	text, _ := io.ReadAll(io.LimitReader(file, maxEnv))
	return parseEnv(string(text))
}

// parseEnv reads setEnv's form and lets be what is not in it: the file is the guest's.
func parseEnv(text string) map[string]string {
	all := map[string]string{}
	for text != "" {
		name, rest, _ := strings.Cut(text, "='")
		if !validVariable(name) {
			_, text, _ = strings.Cut(text, "\n")
			continue
		}
		var value strings.Builder
		for {
			piece, after, ended := strings.Cut(rest, "'")
			if !ended {
				return all
			}
			value.WriteString(piece)
			next, quoted := strings.CutPrefix(after, `\''`)
			if rest = next; !quoted {
				break
			}
			value.WriteByte('\'')
		}
		all[name] = value.String()
		_, text, _ = strings.Cut(rest, "\n")
	}
	return all
}
