package agent

import (
	"maps"
	"os"
	"testing"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/system"
)

func TestVariablesComeBackAsTheyWere(t *testing.T) {
	a := &Agent{System: system.Sandbox{Directory: t.TempDir()}}
	want := map[string]string{"A": "it's\n'two' lines", "B_2": "", "C": `\'`, "D": "=$HOME `x`"}
	env := minijson.Object{}
	for name, value := range want {
		env[name] = value
	}
	if err := a.setEnv(minijson.Object{"env": env}); err != nil {
		t.Fatal(err)
	}
	if got := savedEnv(a.System); !maps.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if info, err := os.Stat(a.System.Path(envPath)); err != nil || info.Mode() != 0o600 {
		t.Error(info, err)
	}
	if err := a.setEnv(minijson.Object{"env": minijson.Object{"not ok": "x"}}); err == nil {
		t.Error("a name that is none")
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add("A='b'\nB='it'\\''s'\n")
	f.Add("A=b\n='x'\nA='open")
	f.Fuzz(func(t *testing.T, text string) {
		for name := range parseEnv(text) {
			if !validVariable(name) {
				t.Fatalf("%q", name)
			}
		}
	})
}

func TestTheBlockOfHosts(t *testing.T) {
	block := hostsBegin + "\n1.2.3.4 a\n" + hostsEnd + "\n"
	for _, c := range []struct{ before, after string }{
		{"", block},
		{"x", "x\n" + block},
		{"x\n" + hostsBegin + "\nold\n" + hostsEnd + "\ny\n", "x\n" + block + "y\n"},
		{"x\n" + hostsBegin + "\nno end\n", "x\n" + block},
	} {
		if got := replaceBlock(c.before, []string{"1.2.3.4 a"}); got != c.after {
			t.Errorf("%q became %q", c.before, got)
		}
	}
	if got := replaceBlock("x\n"+block+"y\n", nil); got != "x\ny\n" {
		t.Errorf("%q", got)
	}
}
