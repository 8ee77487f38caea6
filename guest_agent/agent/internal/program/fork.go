package program

import (
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"nexus/agent/internal/system"
)

const scoreFile = "/proc/self/oom_score_adj"

var (
	forking sync.Mutex
	prepare sync.Once
	// score is the agent's own place in the kernel's list of whom to kill when memory runs out.
	score = "0"
)

// fork starts a program that has inherited nothing of what makes the agent special.
func fork(path string, argv []string, attributes *syscall.ProcAttr) (pid int, err error) {
	forking.Lock()
	defer forking.Unlock()
	prepare.Do(becomeOrdinary)
	if score != "0" { // it is inherited, so for the moment of the fork it is everybody's
		os.WriteFile(scoreFile, []byte("0"), 0)
		defer os.WriteFile(scoreFile, []byte(score), 0)
	}
	system.Exactly(func() { pid, err = syscall.ForkExec(path, argv, attributes) })
	return pid, err
}

// becomeOrdinary notes what must not be inherited. Signals that the agent's own parent let it
// ignore would be ignored by programs too; those with a handler go back to their defaults.
func becomeOrdinary() {
	unheard := make(chan os.Signal, 1)
	for _, number := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(number) {
			signal.Notify(unheard, number)
		}
	}
	if text, err := os.ReadFile(scoreFile); err == nil {
		score = strings.TrimSpace(string(text))
	}
}
