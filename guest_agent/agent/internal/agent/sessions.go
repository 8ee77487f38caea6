package agent

import (
	"errors"
	"math"
	"strings"
	"syscall"
	"time"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/program"
	"nexus/agent/internal/sessions"
	"nexus/agent/internal/system"
	"nexus/agent/internal/yamux"
)

const (
	maxID      = 64
	maxOffset  = 1 << 53 // what a JSON number can say exactly
	errLeaving = "the agent is being replaced"
)

// start runs a program that lives on without the host.
func (a *Agent) start(c *call) error {
	wanted, err := a.wish(c.request)
	if err != nil {
		return c.refuse("invalid", err.Error())
	}
	id, idErr := sessionID(c.request)
	keep, keepErr := keepField(c.request)
	if err := errors.Join(idErr, keepErr); err != nil {
		return c.refuse("invalid", err.Error())
	}
	if a.leaving.Load() {
		return c.refuse("busy", errLeaving)
	}
	about := sessions.About{
		ID: id, User: wanted.user, Dir: wanted.Dir, Argv: wanted.Argv, Input: wanted.Stdin, Keep: keep,
		Deadline: wanted.timeout,
	}
	var refusal error
	s, old, err := a.sessions.Start(about, func() (*program.Program, error) {
		p, err := program.Start(wanted.Command)
		refusal = err
		return p, err
	})
	switch {
	case refusal != nil:
		return c.refuse("cannot-run", refusal.Error())
	case err != nil:
		return c.refuse("busy", err.Error())
	}
	return c.reply(minijson.Object{"pid": s.PID, "tty": s.Terminal, "existing": old})
}

func sessionID(request minijson.Object) (string, error) {
	id, err := request.Text("id")
	if err != nil {
		return "", err
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	if id == "" || len(id) > maxID || strings.Trim(id, letters) != "" {
		return "", errors.New("a session is named by 1 to 64 letters, digits and -")
	}
	return id, nil
}

func keepField(request minijson.Object) (int, error) {
	keep, err := request.Number("keep")
	if err != nil {
		return 0, err
	}
	if keep == 0 {
		return sessions.DefaultKeep, nil
	}
	if keep < sessions.MinKeep || keep > sessions.MaxKeep {
		return 0, errors.New("the field keep must be 4096 to 8388608 bytes")
	}
	return int(keep), nil
}

// session is the one that the header names; nil where there is none, which the host has been told.
func (a *Agent) session(c *call) *sessions.Session {
	id, err := c.request.Text("id")
	if err != nil {
		c.refuse("invalid", err.Error())
		return nil
	}
	s, err := a.sessions.Find(id)
	if err != nil {
		c.refuse("not-found", err.Error())
	}
	return s
}

// list tells of all sessions, each in a record of its own.
func (a *Agent) listSessions(c *call) error {
	if err := c.reply(nil); err != nil {
		return err
	}
	for _, s := range a.sessions.List() {
		if err := writeHeader(c.stream, describe(s)); err != nil {
			return err
		}
	}
	return nil
}

func describe(s *sessions.Session) minijson.Object {
	state := s.State()
	record := minijson.Object{
		"id": s.ID, "argv": s.Argv, "pid": s.PID, "user": s.User, "cwd": s.Dir, "tty": s.Terminal,
		"stdin": s.Input, "started": onTheWall(s.Started), "keep": s.Keep, "first": state.First,
		"size": state.Size, "attached": state.Views,
	}
	if state.Exit != nil {
		record["exit"] = exitObject(*state.Exit)
		record["ended"] = onTheWall(state.Ended)
	}
	return record
}

// onTheWall is a time since the kernel's start as one since the epoch, by the clock as it is now.
func onTheWall(uptime float64) float64 {
	now := float64(time.Now().UnixMilli()) / 1e3
	return max(0, now-system.Uptime()+uptime)
}

func exitObject(exit sessions.Exit) minijson.Object {
	how := minijson.Object{"code": exit.Code}
	if exit.Signal != 0 {
		how = minijson.Object{"signal": exit.Signal}
	}
	if exit.TimedOut {
		how["timed_out"] = true
	}
	return how
}

// signal sends a signal to a session's program.
func (a *Agent) signal(c *call) error {
	number, err := c.request.Number("signal")
	if err != nil || !validSignal(number) {
		return c.refuse("invalid", "a signal is a number from 1 to 64")
	}
	s := a.session(c)
	if s == nil {
		return nil
	}
	s.Signal(syscall.Signal(number))
	return c.reply(nil)
}

// forget gives up what is kept of a session.
func (a *Agent) forget(c *call) error {
	s := a.session(c)
	if s == nil {
		return nil
	}
	switch err := a.sessions.Forget(s.ID); err {
	case nil, sessions.ErrUnknown:
		return c.reply(nil)
	default:
		return c.refuse("busy", err.Error())
	}
}

// attach shows a session's output from an offset on, and lets the host type.
func (a *Agent) attach(c *call) error {
	offset, err := c.request.Number("offset")
	if err != nil || offset < 0 || offset > maxOffset || offset != math.Trunc(offset) {
		return c.refuse("invalid", "the field offset must be a number of bytes")
	}
	s := a.session(c)
	if s == nil {
		return nil
	}
	view, at, err := s.View(uint64(offset))
	if err != nil {
		return c.refuse("busy", err.Error())
	}
	defer view.Leave()
	if err := c.reply(minijson.Object{
		"offset": at, "pid": s.PID, "tty": s.Terminal, "stdin": s.Input,
	}); err != nil {
		return err
	}
	hungUp := make(chan struct{})
	go func() {
		obeyAttached(c.stream, s, view)
		view.Leave()
		close(hungUp)
	}()
	if !show(c, s, view) {
		return nil
	}
	impatience := time.AfterFunc(closeTimeout, c.stream.Reset)
	<-hungUp
	impatience.Stop()
	return nil
}

// show sends what the view tells; true after the session's exit.
func show(c *call, s *sessions.Session, view *sessions.View) bool {
	chunks := chunkWriter{stream: c.stream}
	room := rooms.Get().(room)
	defer rooms.Put(room)
	for {
		kind, n := view.Next(room[chunkHeader:])
		if kind == sessions.Ended {
			return chunks.sendExit(*s.State().Exit) == nil
		}
		if n == 0 || chunks.send(byte(kind), room[:chunkHeader+n]) != nil {
			return false
		}
	}
}

// obeyAttached does what the host says until it goes, or breaks the protocol.
func obeyAttached(stream *yamux.Stream, s *sessions.Session, view *sessions.View) {
	var kind byte
	var data []byte
	var err error
	for {
		if kind, data, err = readChunk(stream, data); err != nil {
			return
		}
		if kind == chunkStdin && view.Put(data) {
			continue
		}
		if !command(s.Program, kind, data) {
			stream.Reset()
			return
		}
	}
}
