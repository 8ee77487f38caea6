// Package program runs programs for the host.
package program

import (
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// lateOutput is what is still taken out of a pipe when its reading has been limited, if it
	// comes at once.
	lateOutput   = 1 << 20
	latePatience = 10 * time.Millisecond
	lateLimit    = time.Second
)

// Command is what to run. Argv goes to the program as it is; no shell looks at it.
type Command struct {
	Argv []string
	// Path is the program's file; "" looks for Argv[0].
	Path string
	// Env is the program's whole environment, "NAME=value"; its PATH is where Argv[0] is looked for.
	Env []string
	Dir string
	// User is whom to run as; nil for the agent's own user.
	User *User
	// Stdin asks for a pipe to the program's standard input, which else is empty.
	Stdin bool
	// Merge sends standard error into the pipe of standard output, which keeps their order.
	Merge bool
	// Terminal, where it is set, is the size of a terminal that takes the place of all pipes.
	Terminal *Size
}

// Program is a program that was started, the leader of a session and a process group of its own.
type Program struct {
	PID int
	// Stdin is nil unless asked for, Stderr is nil where it was merged. A terminal is both Stdin
	// and Stdout.
	Stdin, Stdout, Stderr *os.File
	Terminal              bool

	mutex  sync.Mutex
	reaped bool
}

// Start starts the program. The caller must Await, Reap and Close it.
func Start(c Command) (*Program, error) {
	path, err := c.Path, error(nil)
	if path == "" {
		path, err = find(c.Argv[0], c.Env)
	}
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(c.Dir); err != nil || !info.IsDir() {
		return nil, errors.New("there is no directory " + c.Dir)
	}
	p := &Program{Terminal: c.Terminal != nil}
	files, err := p.open(c)
	if err == nil {
		attributes := &syscall.ProcAttr{
			Dir: c.Dir, Env: c.Env, Files: files,
			Sys: &syscall.SysProcAttr{Setsid: true, Setctty: p.Terminal}, // of its first file
		}
		if c.User != nil {
			attributes.Sys.Credential = c.User.credential()
		}
		p.PID, err = fork(path, c.Argv, attributes)
	}
	closeAll(files)
	if err != nil {
		p.Close()
		return nil, errors.New("cannot run " + path + ": " + err.Error())
	}
	return p, nil
}

// open makes the pipes; the program's three files are returned for it.
func (p *Program) open(c Command) (files []uintptr, err error) {
	var stdin, stdout, stderr int
	if c.Terminal != nil {
		stdin, p.Stdin, err = openTerminal(*c.Terminal, c.User)
		if err != nil {
			return nil, err
		}
		p.Stdout = p.Stdin
		return []uintptr{uintptr(stdin), uintptr(stdin), uintptr(stdin)}, nil
	}
	if c.Stdin {
		stdin, p.Stdin, err = pipe(true)
	} else {
		stdin, err = syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, err
	}
	files = append(files, uintptr(stdin))
	if stdout, p.Stdout, err = pipe(false); err != nil {
		return files, err
	}
	files = append(files, uintptr(stdout))
	if c.Merge {
		return append(files, uintptr(stdout)), nil
	}
	if stderr, p.Stderr, err = pipe(false); err != nil {
		return files, err
	}
	return append(files, uintptr(stderr)), nil
}

// pipe makes a pipe: an ordinary end for the program, and ours, on which only goroutines wait.
func pipe(programReads bool) (theirs int, ours *os.File, err error) {
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
		return 0, nil, err
	}
	mine, theirs := ends[0], ends[1]
	if programReads {
		mine, theirs = theirs, mine
	}
	syscall.SetNonblock(mine, true)
	return theirs, os.NewFile(uintptr(mine), "pipe"), nil
}

func closeAll(files []uintptr) {
	for i, fd := range files {
		if i == 0 || fd != files[i-1] { // merged: two names of one file
			syscall.Close(int(fd))
		}
	}
}

// Close closes the agent's ends of the pipes.
func (p *Program) Close() {
	for _, file := range []*os.File{p.Stdin, p.Stdout, p.Stderr} {
		if file != nil {
			file.Close()
		}
	}
}

// Signal sends a signal to the program's process group, for as long as its number is its own, and
// to the one in the foreground of its terminal.
func (p *Program) Signal(number syscall.Signal) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.reaped {
		return
	}
	if group := p.foreground(); group > 0 && group != p.PID {
		syscall.Kill(-group, number)
	}
	syscall.Kill(-p.PID, number)
}

// Reap takes the ended program's status. Only this process waits for it: the agent is never the
// first process, and whoever is reaps its own children.
func (p *Program) Reap() (status syscall.WaitStatus) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for {
		if _, err := syscall.Wait4(p.PID, &status, 0, nil); err != syscall.EINTR {
			p.reaped = true
			return status
		}
	}
}

// LimitReading lets Drain come to an end after patience, unless the output has ended by then:
// another process may hold the pipes for ever.
func (p *Program) LimitReading(patience time.Duration) {
	end := time.Now().Add(patience)
	for _, file := range []*os.File{p.Stdout, p.Stderr} {
		if file != nil {
			file.SetReadDeadline(end)
		}
	}
}

// Drain reads an output into room and calls take with the number of bytes, again and again until
// its end, until take does not want more, or until LimitReading's time is over.
func Drain(output *os.File, room []byte, take func(n int) bool) {
	taken, late := 0, false
	var end time.Time
	for !late || taken < lateOutput && time.Now().Before(end) {
		if late {
			output.SetReadDeadline(time.Now().Add(latePatience))
		}
		n, err := output.Read(room)
		if n > 0 && !take(n) {
			return
		}
		if late {
			taken += n
		}
		if err != nil && (late || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return
		}
		if err != nil {
			late, end = true, time.Now().Add(lateLimit)
		}
	}
}

// find is the file of a program: itself where it has a slash, else looked for in env's PATH.
func find(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, variable := range env {
		list, ok := strings.CutPrefix(variable, "PATH=")
		if !ok {
			continue
		}
		for _, directory := range strings.Split(list, ":") {
			path := directory + "/" + name
			info, err := os.Stat(path)
			if err == nil && directory != "" && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path, nil
			}
		}
	}
	return "", errors.New("there is no program " + name + " in PATH")
}
