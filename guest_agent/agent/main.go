// The Nexus guest agent: the first process of a guest, its service, and the end of the
// connection to the host that runs inside it. docs/agent-protocol.md says what it speaks.
package main

import (
	_ "embed"
	"os"
	"strconv"
	"strings"

	"nexus/agent/internal/agent"
	"nexus/agent/internal/boot"
	"nexus/agent/internal/identity"
	"nexus/agent/internal/link"
	"nexus/agent/internal/system"
	"nexus/agent/internal/tsc"
)

//go:embed VERSION
var version string

const (
	defaultPort = "nexus.agent.0"
	usage       = `usage: nexus-agent service    serve the host; waits while another agent does
       nexus-agent tsc        print the time stamp counter's frequency in kHz
       nexus-agent version
`
)

func main() {
	if os.Getpid() == 1 {
		boot.Run()
	}
	command := ""
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	switch command {
	case "agent", "service":
		serve(command, options(os.Args[2:]))
	case "identity":
		renewIdentity(options(os.Args[2:]))
	case "tsc":
		printTSC()
	case "handover":
		say(agent.HandoverFormat)
	case "version":
		say(strings.TrimSpace(version))
	default:
		os.Stderr.WriteString(usage)
		os.Exit(2)
	}
}

// options reads "--name value" pairs. Unknown names are let through: the initrd's agent, which
// starts the image's, may be a newer one.
func options(arguments []string) map[string]string {
	found := map[string]string{}
	for i := 0; i+1 < len(arguments); i += 2 {
		found[strings.TrimPrefix(arguments[i], "--")] = arguments[i+1]
	}
	return found
}

// serve runs the agent: "agent" as the first process starts it, before the distribution's init,
// "service" as that init does. With --dial, --sandbox and --lock it is a test's agent.
func serve(command string, options map[string]string) {
	system.Calm()
	a := &agent.Agent{
		System:  system.Guest{},
		Dialer:  link.Dialer{Port: defaultPort},
		Version: strings.TrimSpace(version),
		Started: system.Uptime(),
		Init:    options["init"],
	}
	a.RootMounted, _ = strconv.ParseFloat(options["root-mounted"], 64)
	if a.SetIdentity(options["identity"]); options["identity"] == "" {
		a.SetIdentity(presentIdentity())
	}
	if port, there := system.KernelWord("nexus.port"); there {
		a.Dialer.Port = port
	}
	if dial := options["dial"]; dial != "" {
		a.Dialer.Unix = strings.TrimPrefix(dial, "unix:")
		if options["sandbox"] == "" {
			fail("--dial needs --sandbox DIRECTORY")
		}
		a.System = system.Sandbox{Directory: options["sandbox"]}
	}
	if command == "service" {
		a.Init = "/proc/1/exe"
		a.Settled()
	}
	if err := begin(a, options); err != nil {
		fail(err.Error())
	}
	system.ThawAll(a.System) // an agent that came to an end may have left them frozen
	if a.Init == "none" {
		a.Settled()
	} else if a.Init != "" {
		a.Init = system.InitName(a.Init)
	}
	a.Run()
}

// begin makes this process the guest's agent: once no other one is, or in the place of the one
// that it was until now.
func begin(a *agent.Agent, options map[string]string) (err error) {
	if state, there := options["handover"]; there {
		fd, err := strconv.Atoi(state)
		if err != nil {
			return err
		}
		return a.TakeOver(fd)
	}
	lock := agent.DefaultLock
	if name, there := options["lock"]; there {
		lock = name
	}
	a.Lock, err = agent.Hold(lock)
	return err
}

// presentIdentity is for an agent that the first process did not start: what it began is over.
func presentIdentity() string {
	id, _ := system.KernelWord(identity.KernelWord)
	if identity.State(system.Guest{}, id) == identity.Kept {
		return identity.Kept
	}
	return identity.None
}

// renewIdentity is what the first process runs for a guest that has another one's identity.
func renewIdentity(options map[string]string) {
	var s system.System = system.Guest{}
	if options["sandbox"] != "" {
		s = system.Sandbox{Directory: options["sandbox"]}
	}
	if err := identity.Renew(s, options["id"]); err != nil {
		fail("identity: " + err.Error())
	}
}

func printTSC() {
	if !tsc.Supported {
		fail("this architecture has no time stamp counter")
	}
	say(strconv.Itoa(int(tsc.KHz())))
}

func say(text string) { os.Stdout.WriteString(text + "\n") }

func fail(text string) {
	system.Complain(text)
	os.Exit(2)
}
