package agent

import (
	"math"
	"sync"

	"nexus/agent/internal/link"
	"nexus/agent/internal/minijson"
	"nexus/agent/internal/system"
	"nexus/agent/internal/yamux"
)

// greet says hello and, if init is not through yet, tells the host later when it is.
func (a *Agent) greet(session *yamux.Session) error {
	seconds, over := a.settled.look()
	if err := a.announce(session, a.hello(seconds)); err != nil {
		return err
	}
	if seconds > 0 {
		return nil
	}
	go func() {
		select {
		case <-over:
			seconds, _ := a.settled.look()
			a.announce(session, minijson.Object{"op": "settled", "seconds": known(seconds)})
		case <-session.Done():
		}
	}()
	return nil
}

// announce opens a stream that holds one header and nothing else.
func (a *Agent) announce(session *yamux.Session, header minijson.Object) error {
	stream, err := session.Open()
	if err != nil {
		return err
	}
	if err := writeHeader(stream, header); err != nil {
		return err
	}
	stream.CloseWrite()
	go func() {
		drain(stream)
		stream.Reset()
	}()
	return nil
}

func (a *Agent) hello(settled float64) minijson.Object {
	facts := a.facts.of(a.System)
	return minijson.Object{
		"op":            "hello",
		"protocol":      link.ProtocolVersion,
		"agent_version": a.Version,
		"arch":          system.Arch(),
		"kernel":        facts.kernel,
		"os":            facts.os,
		"init":          a.Init,
		"hostname":      system.Hostname(),
		"boot_id":       a.bootID(),
		"identity":      a.identity(),
		"image":         facts.image,
		"boot": minijson.Object{
			"agent_started": known(a.Started),
			"root_mounted":  known(a.RootMounted),
			"settled":       known(settled),
		},
	}
}

// facts are what a guest is from its boot on. They are read once: a guest that goes on from memory
// says hello at once.
type facts struct {
	once       sync.Once
	kernel, os string
	image      minijson.Object
}

func (f *facts) of(guest system.System) *facts {
	f.once.Do(func() {
		f.kernel, f.os, f.image = system.KernelRelease(), system.OSName(guest), minijson.Object{}
		metadata := system.ImageMetadata(guest)
		for _, key := range []string{"image_id", "image_name", "build_id", "built_at"} {
			f.image[key] = metadata[key]
		}
	})
	return f
}

// bootID is the name of this boot, or the one that the host gave it.
func (a *Agent) bootID() string {
	if id := a.boot.Load(); id != nil {
		return *id
	}
	id := system.BootID(a.System)
	a.boot.CompareAndSwap(nil, &id)
	return *a.boot.Load()
}

// known is a time in whole milliseconds, null for one that nobody measured.
func known(seconds float64) any {
	if seconds == 0 {
		return nil
	}
	return math.Round(seconds*1000) / 1000
}

// settled remembers when the distribution's init got through starting its services.
type settled struct {
	mutex   sync.Mutex
	seconds float64
	over    chan struct{}
}

// look gives the seconds since the kernel started, 0 for not yet, and a channel that is closed
// when it has happened.
func (s *settled) look() (float64, <-chan struct{}) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.seconds, s.channel()
}

func (s *settled) channel() chan struct{} {
	if s.over == nil {
		s.over = make(chan struct{})
	}
	return s.over
}

func (s *settled) at(seconds float64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.seconds == 0 {
		s.seconds = seconds
		close(s.channel())
	}
}

// Settled says that the distribution's init has started its services, and applied its settings.
func (a *Agent) Settled() {
	system.PanicAsTold(a.System)
	a.settled.at(system.Uptime())
}
