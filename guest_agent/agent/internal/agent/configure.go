package agent

import (
	"encoding/base64"
	"errors"
	"math"
	"strings"
	"time"

	"nexus/agent/internal/identity"
	"nexus/agent/internal/minijson"
	"nexus/agent/internal/system"
)

const syncDelay = time.Second

// configure applies what the host sets. Order matters: after a resume nothing may run with an
// old clock or with random numbers that another machine has too. Every step is tried; what
// failed is the answer.
func (a *Agent) configure(c *call) error {
	if a.frost.Load() != nil { // it would wait for the thaw, and with it whoever configures next
		return c.refuse("busy", "the file systems are frozen")
	}
	a.configuring.Lock()
	defer a.configuring.Unlock()
	var problems []string
	for _, step := range []struct {
		name string
		do   func(minijson.Object) error
	}{
		{"time", a.setTime}, {"entropy", a.addEntropy}, {"boot_id", a.setBootID},
		{"hostname", a.setHostname}, {"hosts", a.setHosts}, {"network", a.setNetwork},
		{"identity", a.setIdentity}, {"env", a.setEnv},
	} {
		if c.request[step.name] == nil {
			continue
		}
		if err := step.do(c.request); err != nil {
			problems = append(problems, step.name+": "+err.Error())
		}
	}
	if problems != nil {
		return c.refuse("configure-failed", strings.Join(problems, "; "))
	}
	return c.reply(minijson.Object{
		"boot_id":  a.bootID(),
		"identity": a.identity(),
		"time":     float64(time.Now().UnixMicro()) / 1e6,
	})
}

func (a *Agent) setTime(request minijson.Object) error {
	seconds, err := request.Number("time")
	if err != nil {
		return err
	}
	if seconds < 0 || seconds > 1<<40 {
		return errors.New("out of range")
	}
	whole, fraction := math.Modf(seconds)
	return a.System.SetTime(time.Unix(int64(whole), int64(fraction*1e9)))
}

func (a *Agent) addEntropy(request minijson.Object) error {
	text, err := request.Text("entropy")
	if err != nil {
		return err
	}
	entropy, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(entropy) == 0 || len(entropy) > 512 {
		return errors.New("must be 1 to 512 bytes in base64")
	}
	return a.System.AddEntropy(entropy)
}

func (a *Agent) setBootID(request minijson.Object) error {
	id, err := request.Text("boot_id")
	if err != nil {
		return err
	}
	if err := system.SetBootID(a.System, id); err != nil {
		return err
	}
	a.boot.Store(&id)
	return nil
}

// setIdentity makes the guest the one with this id. Keys that take long are made later, and nobody
// is served by those before them.
func (a *Agent) setIdentity(request minijson.Object) error {
	id, err := request.Text("identity")
	if err != nil {
		return err
	}
	state, err := identity.Become(a.System, id)
	if err != nil {
		return err
	}
	if state == identity.New {
		a.SetIdentity(state)
	}
	go a.finishIdentity(state)
	return nil
}

// finishIdentity is for later: what a new guest was asked for comes first.
func (a *Agent) finishIdentity(state string) {
	if err := identity.FinishKeys(a.System); err != nil {
		system.Complain("SSH host keys", err.Error())
	}
	if state == identity.New {
		time.Sleep(syncDelay)
		a.System.Sync()
	}
}

func (a *Agent) setHostname(request minijson.Object) error {
	name, err := request.Text("hostname")
	if err != nil {
		return err
	}
	if !validHostname(name) {
		return errors.New("must be 1 to 63 of a-z, 0-9 and -")
	}
	hosts, err := updateHosts(a.System.Path("/etc/hosts"), name)
	if err != nil {
		return err
	}
	return errors.Join(
		a.System.SetHostname(name),
		system.WriteFile(a.System.Path("/etc/hostname"), []byte(name+"\n"), 0o644),
		system.WriteFile(a.System.Path("/etc/hosts"), hosts, 0o644),
	)
}

func validHostname(name string) bool {
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') {
			return false
		}
	}
	return name != "" && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-'
}

func (a *Agent) setNetwork(request minijson.Object) error {
	network, err := request.Object("network")
	if err != nil {
		return err
	}
	address, err1 := network.Text("address")
	gateway, err2 := network.Text("gateway")
	name, err3 := network.Text("interface")
	servers, err4 := network.Texts("dns")
	mac, err5 := network.Text("mac")
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return err
	}
	if name == "" {
		name = "eth0"
	}
	if address != "" {
		i, err := system.ParseInterface(name, address, gateway)
		if err != nil {
			return err
		}
		if mac != "" {
			if i.MAC, err = system.ParseMAC(mac); err != nil {
				return err
			}
		}
		if err := a.System.SetUpInterface(i); err != nil {
			return errors.New(name + ": " + err.Error())
		}
	}
	return a.setNameServers(servers)
}

func (a *Agent) setNameServers(servers []string) error {
	if len(servers) == 0 {
		return nil
	}
	var content strings.Builder
	for _, server := range servers {
		ip, err := system.ParseIPv4(server)
		if err != nil {
			return err
		}
		content.WriteString("nameserver " + ip.String() + "\n")
	}
	return system.WriteFile(a.System.Path("/etc/resolv.conf"), []byte(content.String()), 0o644)
}
