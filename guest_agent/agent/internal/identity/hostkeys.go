package identity

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"nexus/agent/internal/program"
	"nexus/agent/internal/system"
)

const (
	// keyTimeout is for one key: an RSA key takes an emulated machine many seconds.
	keyTimeout = 2 * time.Minute
	// readTimeout is for what ssh-keygen has said when it has ended.
	readTimeout = 100 * time.Millisecond
)

// renewHostKeys makes each of the guest's SSH host keys anew.
func renewHostKeys(s system.System) error {
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		path := s.Path("/etc/ssh/ssh_host_" + kind + "_key")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			if err := renewHostKey(path, kind, info); err != nil {
				return errors.New(path + ": " + err.Error())
			}
		}
	}
	return nil
}

// renewHostKey puts a key in the place of another, which it is like: its mode and its owner are
// the distribution's choice. A guest that has no ssh-keygen keeps its key.
func renewHostKey(path, kind string, old os.FileInfo) error {
	fresh := path + ".nexus-new"
	os.Remove(fresh) // ssh-keygen would ask before it overwrites
	os.Remove(fresh + ".pub")
	keygen, err := program.Start(program.Command{
		Argv: []string{"ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", fresh},
		Env:  os.Environ(), Dir: "/", Merge: true,
	})
	if err != nil {
		system.Complain("the SSH host keys stay", err.Error())
		return nil
	}
	if err := finish(keygen); err != nil {
		return err
	}
	owner := old.Sys().(*syscall.Stat_t)
	return errors.Join(
		os.Chown(fresh, int(owner.Uid), int(owner.Gid)),
		os.Chmod(fresh, old.Mode().Perm()),
		os.Rename(fresh+".pub", path+".pub"),
		os.Rename(fresh, path),
	)
}

// finish waits for a program; what it said is the error where it failed.
func finish(p *program.Program) error {
	defer p.Close()
	clock := time.AfterFunc(keyTimeout, func() { p.Signal(syscall.SIGKILL) })
	defer clock.Stop()
	p.Await()
	p.LimitReading(readTimeout)
	said, _ := io.ReadAll(io.LimitReader(p.Stdout, 1<<10))
	if status := p.Reap(); status.ExitStatus() != 0 {
		return errors.New("ssh-keygen failed: " + strings.TrimSpace(string(said)))
	}
	return nil
}
