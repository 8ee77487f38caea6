package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"nexus/agent/internal/minijson"
	"nexus/agent/internal/program"
	"nexus/agent/internal/system"
)

const (
	defaultPath     = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultShell    = "/bin/sh"
	defaultTerminal = "xterm-256color"
	maxSide         = 4096 // rows or columns of a terminal
	maxTimeout      = 1 << 31
)

// wish is what the header of exec or start asks for.
type wish struct {
	program.Command
	user    string // as the host names it
	timeout float64
}

// wish reads the header.
func (a *Agent) wish(request minijson.Object) (w wish, err error) {
	var errs [6]error
	var shell bool
	w.Argv, errs[0] = request.Texts("argv")
	w.Dir, errs[1] = request.Text("cwd")
	w.user, errs[2] = request.Text("user")
	w.Stdin, errs[3] = request.Bool("stdin")
	w.Merge, errs[4] = request.Bool("merge")
	shell, errs[5] = request.Bool("shell")
	if err := errors.Join(errs[:]...); err != nil {
		return w, err
	}
	user, err := a.user(w.user)
	if err != nil {
		return w, err
	}
	if w.user != "" {
		w.User = user
	}
	if err := w.choose(shell, user, a.System); err != nil {
		return w, err
	}
	w.timeout, err = request.Number("timeout")
	if err != nil || w.timeout < 0 || w.timeout > maxTimeout {
		return w, errors.New("the field timeout must be a number of seconds")
	}
	return w, a.surround(&w.Command, user, request)
}

// choose decides what runs, and where: the user's login shell begins at home.
func (w *wish) choose(shell bool, user *program.User, s system.System) error {
	if shell {
		if len(w.Argv) != 0 {
			return errors.New("a login shell has no argv")
		}
		if w.Path = user.Shell; !strings.HasPrefix(w.Path, "/") {
			w.Path = defaultShell
		}
		w.Argv = []string{"-" + filepath.Base(w.Path)}
		if info, err := os.Stat(user.Home); err == nil && info.IsDir() && w.Dir == "" {
			w.Dir = user.Home
		}
	}
	if w.Dir == "" {
		w.Dir = "/"
	}
	if len(w.Argv) == 0 || w.Argv[0] == "" {
		return errors.New("the field argv must name a program")
	}
	if !strings.HasPrefix(w.Dir, "/") {
		return errors.New("the field cwd must be an absolute path")
	}
	return nil
}

// surround gives the program its terminal and its environment.
func (a *Agent) surround(c *program.Command, user *program.User, request minijson.Object) error {
	tty, err := request.Object("tty")
	if err != nil {
		return err
	}
	given, err := request.Object("env")
	if err != nil {
		return err
	}
	all := map[string]string{"PATH": defaultPath, "LANG": "C.UTF-8", "HOME": user.Home}
	if user.Name != "" {
		all["USER"], all["LOGNAME"] = user.Name, user.Name
	}
	if c.Path != "" {
		all["SHELL"] = c.Path
	}
	if tty != nil {
		if all["TERM"], c.Terminal, err = terminal(tty); err != nil {
			return err
		}
		c.Stdin, c.Merge = true, true
	}
	for name, value := range savedEnv(a.System) {
		all[name] = value
	}
	c.Env, err = environment(all, given)
	return err
}

// terminal reads what the host wants for one.
func terminal(tty minijson.Object) (name string, size *program.Size, err error) {
	name, err = tty.Text("term")
	if err != nil {
		return "", nil, err
	}
	if name == "" {
		name = defaultTerminal
	}
	rows, rowsErr := tty.Number("rows")
	cols, colsErr := tty.Number("cols")
	if rowsErr != nil || colsErr != nil || rows < 0 || cols < 0 || rows > maxSide || cols > maxSide {
		return "", nil, errors.New("a terminal has 0 to 4096 rows and cols")
	}
	return name, &program.Size{Rows: uint16(rows), Cols: uint16(cols)}, nil
}

// user is whom a program runs as, the agent's own user where none is wanted: in its own group, so
// that the file of the groups is not read for nothing.
func (a *Agent) user(wanted string) (*program.User, error) {
	if wanted == "" {
		wanted = strconv.Itoa(os.Getuid()) + ":" + strconv.Itoa(os.Getgid())
	}
	return program.LookUp(wanted, a.System.Path("/etc/passwd"), a.System.Path("/etc/group"))
}

// environment is what every program finds, and what the host gives in addition or instead.
func environment(all map[string]string, given minijson.Object) ([]string, error) {
	for name := range given {
		value, err := given.Text(name)
		if err != nil {
			return nil, err
		}
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return nil, errors.New("not a variable: " + name)
		}
		all[name] = value
	}
	list := make([]string, 0, len(all))
	for name, value := range all {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list, nil
}

// begin starts a program, or tells the host why not.
func (c *call) begin(command program.Command) *program.Program {
	started, err := program.Start(command)
	if err != nil {
		c.refuse("cannot-run", err.Error())
		return nil
	}
	return started
}

// validSignal tells whether the host may send it.
func validSignal(number float64) bool {
	return number == float64(syscall.Signal(number)) && number >= 1 && number <= 64
}
