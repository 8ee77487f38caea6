package identity

import (
	"errors"
	"os"
	"syscall"

	"nexus/agent/internal/system"
)

// Become makes the guest the one with this id: it takes away what the guest has of another one,
// and gives it a machine id and one SSH host key of its own. From then on nobody takes it for the
// other; keys that are still to be made are FinishKeys's. It waits while somebody else is at it.
//
// What the guest is from now on is written last, and journals keep the order: an end before that is on
// the disk, or an error, lets the next one begin anew, at the latest the next boot. So nobody needs to
// wait for the disk. It tells what State does of a guest that is asked.
func Become(s system.System, id string) (state string, err error) {
	if !valid(id) {
		return None, errors.New("not an identity: " + id)
	}
	if state := State(s, id); state != New {
		return state, nil
	}
	lock, err := lockGuest(s, syscall.LOCK_EX)
	if err != nil {
		return New, err
	}
	defer lock.Close()
	if state := State(s, id); state != New { // whoever had the lock has seen to it
		return state, nil
	}
	if err := renewFirstKey(s); err != nil {
		return New, err
	}
	if err := renewMachineIDs(s); err != nil {
		return New, err
	}
	return New, system.WriteFile(s.Path(record), []byte(id+"\n"), 0o644)
}

// FinishKeys makes the host keys that Become has set aside, which may take a minute. Nothing
// happens where there are none, or somebody is at it.
func FinishKeys(s system.System) error {
	if len(setAsideKeys(s)) == 0 {
		return nil
	}
	lock, err := lockGuest(s, syscall.LOCK_EX|syscall.LOCK_NB)
	if err == syscall.EWOULDBLOCK {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, key := range setAsideKeys(s) {
		if err := key.renew(); err != nil {
			return err
		}
	}
	s.Reload("sshd")
	return nil
}

// renewFirstKey makes the key anew that is made quickest, and sets the others aside. A guest that
// has no ssh-keygen keeps its keys.
func renewFirstKey(s system.System) error {
	keys := hostKeys(s)
	if len(keys) == 0 {
		return nil
	}
	switch err := keys[0].renew(); err {
	case nil:
	case errNoKeygen:
		return nil
	default:
		return err
	}
	for _, key := range keys[1:] {
		if err := key.setAside(); err != nil {
			return err
		}
	}
	s.Reload("sshd")
	return nil
}

// lockGuest is for who gives this guest an identity: one at a time does, whichever process is at
// it. Closing the file frees it. EWOULDBLOCK is the error for who does not want to wait.
func lockGuest(s system.System, how int) (*os.File, error) {
	directory := s.Path(directory)
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.Open(directory)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(lock.Fd()), how); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}
