package sessions

import (
	"encoding/base64"
	"errors"
	"os"
	"time"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/program"
)

// Pause stops everything that moves: what is with the agent stays there, what is with the
// programs and the kernel stays there. Resume is for an agent that was not replaced after all.
func (t *Table) Pause() {
	t.mutex.Lock()
	for _, s := range t.all {
		s.pause()
	}
	for _, s := range t.all {
		s.awaitPause()
	}
}

// Resume goes on after Pause.
func (t *Table) Resume() {
	for _, s := range t.all {
		s.resume()
	}
	t.mutex.Unlock()
}

func (s *Session) pause() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.leaving = true
	s.setDeadlines(time.Now())
}

func (s *Session) awaitPause() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for s.feeding || s.pumps > 0 {
		s.changed.Wait()
	}
}

func (s *Session) resume() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.leaving = false
	if s.exit == nil {
		s.setDeadlines(time.Time{})
		if s.over {
			s.LimitReading(outputGrace)
		}
		s.pumpAll()
	}
	s.changed.Broadcast()
}

func (s *Session) setDeadlines(when time.Time) {
	for _, file := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
		if file != nil {
			file.SetDeadline(when)
		}
	}
}

// Pack is all sessions in a form for Unpack, and the files that must stay open. Call it paused.
func (t *Table) Pack() (packed minijson.Array, files []int) {
	for _, s := range t.all {
		p := minijson.Object{
			"id": s.ID, "user": s.User, "dir": s.Dir, "argv": s.Argv, "takes": s.Input, "keep": s.Keep,
			"started": s.Started, "deadline": s.Deadline, "late": s.late, "pid": s.PID, "tty": s.Terminal,
			"input": base64.StdEncoding.EncodeToString(s.input.rest()), "input_ended": s.input.ended,
			"input_ends": s.input.ends(),
			"output":     program.Descriptor(s.output.file), "first": int64(s.output.first),
			"size": int64(s.output.size), "ended": s.ended,
		}
		runs := minijson.Array{}
		for _, r := range s.output.runs {
			runs = append(runs, int64(r.end), int(r.kind))
		}
		p["runs"] = runs
		if s.exit != nil {
			p["exit"] = minijson.Array{s.exit.Code, s.exit.Signal, s.exit.TimedOut}
		}
		for name, file := range map[string]*os.File{"stdin": s.Stdin, "stdout": s.Stdout, "stderr": s.Stderr} {
			if fd := program.Descriptor(file); fd >= 0 {
				p[name] = fd
				files = append(files, fd)
			}
		}
		files = append(files, program.Descriptor(s.output.file))
		packed = append(packed, p)
	}
	return packed, files
}

var errPacked = errors.New("the sessions of the agent before cannot be read")

// Unpack takes over the sessions of the agent before this one.
func (t *Table) Unpack(packed minijson.Array) error {
	for _, value := range packed {
		p, ok := value.(minijson.Object)
		if !ok {
			return errPacked
		}
		s, err := unpack(p)
		if err != nil {
			return err
		}
		t.add(s)
		if s.exit == nil {
			s.run()
		}
	}
	return nil
}

// reader collects the first error of many fields.
type reader struct {
	minijson.Object
	err error
}

func (r *reader) number(key string) float64 {
	n, err := r.Number(key)
	r.err = errors.Join(r.err, err)
	return n
}

func (r *reader) text(key string) string {
	text, err := r.Text(key)
	r.err = errors.Join(r.err, err)
	return text
}

func (r *reader) bool(key string) bool {
	b, err := r.Bool(key)
	r.err = errors.Join(r.err, err)
	return b
}

// file is an inherited file; nil where there is none.
func (r *reader) file(key string) *os.File {
	if r.Object[key] == nil {
		return nil
	}
	return program.Inherited(int(r.number(key)), key)
}

func unpack(object minijson.Object) (*Session, error) {
	r := &reader{Object: object}
	argv, err := object.Texts("argv")
	about := About{
		ID: r.text("id"), User: r.text("user"), Dir: r.text("dir"), Argv: argv, Input: r.bool("takes"),
		Keep: int(r.number("keep")), Started: r.number("started"), Deadline: r.number("deadline"),
	}
	output := &ring{
		file: r.file("output"), keep: uint64(about.Keep),
		first: uint64(r.number("first")), size: uint64(r.number("size")),
	}
	runs, _ := object["runs"].(minijson.Array)
	for i := 0; i+1 < len(runs); i += 2 {
		end, _ := runs[i].(float64)
		kind, _ := runs[i+1].(float64)
		output.runs = append(output.runs, run{uint64(end), Event(kind)})
	}
	p := &program.Program{PID: int(r.number("pid")), Terminal: r.bool("tty")}
	s := newSession(about, p, output)
	s.late, s.ended = r.bool("late"), r.number("ended")
	if exit, ok := object["exit"].(minijson.Array); ok && len(exit) == 3 {
		s.exit = readExit(exit)
		s.input.over = true
		return s, errors.Join(r.err, err)
	}
	p.Stdout, p.Stderr = r.file("stdout"), r.file("stderr")
	if p.Stdin = p.Stdout; !p.Terminal {
		p.Stdin = r.file("stdin")
	}
	rest, restErr := base64.StdEncoding.DecodeString(r.text("input"))
	s.input.inherit(rest, r.bool("input_ended"), r.bool("input_ends"))
	if output.file == nil || p.Stdout == nil || output.keep == 0 {
		return nil, errPacked
	}
	return s, errors.Join(r.err, err, restErr)
}

func readExit(exit minijson.Array) *Exit {
	code, _ := exit[0].(float64)
	number, _ := exit[1].(float64)
	late, _ := exit[2].(bool)
	return &Exit{Code: int(code), Signal: int(number), TimedOut: late}
}
