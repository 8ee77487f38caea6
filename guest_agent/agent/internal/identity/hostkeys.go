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
	// aside ends the name of a key that nobody may be served by, and whose successor is still to
	// be made: it tells whoever finishes that there was one.
	aside = ".nexus-old"
)

// errNoKeygen says that the guest cannot make keys.
var errNoKeygen = errors.New("no ssh-keygen")

// hostKey is one of the guest's SSH host keys. What it is like, its mode and its owner, is the
// distribution's choice.
type hostKey struct {
	path, kind string
	like       os.FileInfo
}

// hostKeys are those that there are, or that are set aside; the quickest to make comes first.
func hostKeys(s system.System) (found []hostKey) {
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		path := s.Path("/etc/ssh/ssh_host_" + kind + "_key")
		for _, file := range []string{path, path + aside} {
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
				found = append(found, hostKey{path, kind, info})
				break
			}
		}
	}
	return found
}

// setAsideKeys are those whose successors are still to be made.
func setAsideKeys(s system.System) (found []hostKey) {
	for _, key := range hostKeys(s) {
		if _, err := os.Stat(key.path + aside); err == nil {
			found = append(found, key)
		}
	}
	return found
}

// setAside takes the key away from who would serve by it.
func (k hostKey) setAside() error {
	os.Remove(k.path + ".pub")
	if err := os.Rename(k.path, k.path+aside); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// renew puts another key in its place; errNoKeygen where that cannot be.
func (k hostKey) renew() error {
	fresh := k.path + ".nexus-new"
	os.Remove(fresh) // ssh-keygen would ask before it overwrites
	os.Remove(fresh + ".pub")
	keygen, err := program.Start(program.Command{
		Argv: []string{"ssh-keygen", "-q", "-t", k.kind, "-N", "", "-C", "", "-f", fresh},
		Env:  os.Environ(), Dir: "/", Merge: true,
	})
	if err != nil {
		system.Complain("the SSH host keys stay", err.Error())
		return errNoKeygen
	}
	if err := finish(keygen); err != nil {
		return errors.New(k.path + ": " + err.Error())
	}
	owner := k.like.Sys().(*syscall.Stat_t)
	err = errors.Join(
		os.Chown(fresh, int(owner.Uid), int(owner.Gid)),
		os.Chmod(fresh, k.like.Mode().Perm()),
		os.Rename(fresh+".pub", k.path+".pub"),
		os.Rename(fresh, k.path),
	)
	os.Remove(k.path + aside)
	return err
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
