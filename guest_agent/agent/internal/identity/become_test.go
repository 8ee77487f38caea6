package identity

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"nexus/agent/internal/system"
)

const (
	ed25519 = "/etc/ssh/ssh_host_ed25519_key"
	rsa     = "/etc/ssh/ssh_host_rsa_key"
)

// copied is a guest with another one's identity, and with two host keys.
func copied(t *testing.T) system.Sandbox {
	s := guest(t, keygen)
	put(t, s, "/etc/machine-id", imageID, 0o444)
	put(t, s, ed25519, "the image's", 0o600)
	put(t, s, rsa, "the image's", 0o640)
	put(t, s, rsa+".pub", "the image's", 0o644)
	return s
}

func TestAKeyThatTakesLongServesNobodyMeanwhile(t *testing.T) {
	s := copied(t)
	if state, err := Become(s, one); state != New || err != nil || State(s, one) != Kept {
		t.Fatal(state, err)
	}
	if get(s, ed25519) != "a new ed25519 key\n" || get(s, rsa) != "none" || get(s, rsa+".pub") != "none" {
		t.Error(get(s, ed25519), get(s, rsa), get(s, rsa+".pub"))
	}
	if err := FinishKeys(s); err != nil || get(s, "/etc/machine-id") == imageID {
		t.Error(err, get(s, "/etc/machine-id"))
	}
	if info, err := os.Stat(s.Path(rsa)); get(s, rsa) != "a new rsa key\n" || err != nil || info.Mode() != 0o640 {
		t.Error(get(s, rsa), info, err)
	}
	if get(s, rsa+aside) != "none" || get(s, "/calls") != "reload sshd\nreload sshd\n" {
		t.Error(get(s, rsa+aside), get(s, "/calls"))
	}
	if err := FinishKeys(s); err != nil || strings.Count(get(s, "/calls"), "reload") != 2 {
		t.Error("there was nothing left to do", err)
	}
}

func TestAKeyThatWasSetAsideIsMadeByWhoeverFinishes(t *testing.T) {
	s := copied(t)
	if _, err := Become(s, one); err != nil {
		t.Fatal(err)
	}
	put(t, s, "/full", "", 0o644)
	if err := FinishKeys(s); err == nil || get(s, rsa) != "none" {
		t.Error(err, get(s, rsa))
	}
	if _, err := Become(s, two); err == nil || State(s, two) != New {
		t.Error(err, State(s, two))
	}
	os.Remove(s.Path("/full"))
	if err := Renew(s, two); err != nil || get(s, rsa) != "a new rsa key\n" || get(s, rsa+aside) != "none" {
		t.Error(err, get(s, rsa), get(s, rsa+aside))
	}
}

func TestOneAtATimeGivesAnIdentity(t *testing.T) {
	s := copied(t)
	lock, err := lockGuest(s, syscall.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string)
	go func() {
		state, _ := Become(s, one)
		done <- state
	}()
	select {
	case <-done:
		t.Fatal("it did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	put(t, s, rsa+aside, "the image's", 0o640)
	if err := FinishKeys(s); err != nil || get(s, rsa+aside) == "none" {
		t.Error("somebody else is at it", err)
	}
	put(t, s, record, one+"\n", 0o644) // whoever has the lock has seen to it
	lock.Close()
	if state := <-done; state != Kept || get(s, ed25519) != "the image's" {
		t.Error(state, get(s, ed25519))
	}
}

func TestAGuestThatIsItAlreadyStaysAsItIs(t *testing.T) {
	s := copied(t)
	put(t, s, record, one+"\n", 0o644)
	if state, err := Become(s, one); state != Kept || err != nil || get(s, "/etc/machine-id") != imageID {
		t.Error(state, err, get(s, "/etc/machine-id"))
	}
	if state, err := Become(s, "not/one"); state != None || err == nil || !strings.Contains(err.Error(), "not/one") {
		t.Error(state, err)
	}
}
