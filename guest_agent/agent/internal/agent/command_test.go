package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/system"
)

func guestOf(t testing.TB, passwd string) *Agent {
	t.Helper()
	s := system.Sandbox{Directory: t.TempDir()}
	os.MkdirAll(s.Path("/etc"), 0o755)
	if err := os.WriteFile(s.Path("/etc/passwd"), []byte(passwd), 0o644); err != nil {
		t.Fatal(err)
	}
	return &Agent{System: s}
}

func TestTheLoginShellIsTheUsers(t *testing.T) {
	home := t.TempDir()
	a := guestOf(t, "otter:x:7:8::"+home+":/bin/zsh\nfish:x:9:9::/no/home:\nodd:x:5:5::/:shell\n")
	for user, want := range map[string][4]string{
		"otter": {"/bin/zsh", "-zsh", home, "SHELL=/bin/zsh"},
		"fish":  {"/bin/sh", "-sh", "/", "SHELL=/bin/sh"},
		"odd":   {"/bin/sh", "-sh", "/", "SHELL=/bin/sh"},
		"1234":  {"/bin/sh", "-sh", "/", "SHELL=/bin/sh"},
	} {
		w, err := a.wish(minijson.Object{"shell": true, "user": user, "tty": minijson.Object{"rows": 5.0}})
		if err != nil || w.Path != want[0] || !slices.Equal(w.Argv, []string{want[1]}) || w.Dir != want[2] {
			t.Errorf("%s: %+v, %v", user, w, err)
		}
		if !slices.Contains(w.Env, want[3]) || !slices.Contains(w.Env, "TERM="+defaultTerminal) || w.Terminal.Rows != 5 {
			t.Errorf("%s: %q", user, w.Env)
		}
	}
	if _, err := a.wish(minijson.Object{"shell": true, "argv": minijson.Array{"ls"}}); err == nil {
		t.Error("a shell with a program of its own")
	}
}

func FuzzWish(f *testing.F) {
	for _, seed := range []string{
		`{"argv":["a"],"env":{"A":"b"},"cwd":"/","timeout":1,"tty":{"rows":1,"cols":2,"term":"x"}}`,
		`{"shell":true,"user":"root:x","tty":{}}`, `{"argv":[""],"tty":5}`, `{"argv":["\udc80"],"timeout":-1}`,
	} {
		f.Add([]byte(seed))
	}
	a := guestOf(f, "root:x:0:0::/:/bin/sh\n")
	f.Fuzz(func(t *testing.T, text []byte) {
		request, err := minijson.Decode(text)
		if err != nil {
			return
		}
		w, err := a.wish(request)
		if err != nil {
			return
		}
		if len(w.Argv) == 0 || w.Argv[0] == "" || !filepath.IsAbs(w.Dir) || w.timeout < 0 {
			t.Fatalf("%+v", w)
		}
		for _, variable := range w.Env {
			if name, _, ok := strings.Cut(variable, "="); !ok || name == "" {
				t.Fatalf("%q", w.Env)
			}
		}
	})
}

func FuzzHostLine(f *testing.F) {
	f.Add("10.0.0.1 a b\tc")
	f.Add("a\nb")
	f.Fuzz(func(t *testing.T, line string) {
		if validHostLine(line) && strings.ContainsAny(line, "\n\r#") {
			t.Fatalf("%q", line)
		}
	})
}
