package program

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// User is whom a program runs as.
type User struct {
	Name, Home string
	Shell      string // "" where the files name none
	UID, GID   uint32
	Groups     []uint32
}

func (u *User) credential() *syscall.Credential {
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// LookUp finds "name", "uid", "name:group" or "uid:gid" in the files passwd and group. Numbers
// need not be in them.
func LookUp(wanted, passwd, group string) (*User, error) {
	name, groupName, hasGroup := strings.Cut(wanted, ":")
	u := &User{Home: "/"}
	number, err := strconv.ParseUint(name, 10, 31)
	isNumber := err == nil
	found := false
	for words := range records(passwd, 7) {
		if uid := id(words[2]); words[0] == name || isNumber && uid == uint32(number) {
			*u = User{Name: words[0], Home: words[5], Shell: words[6], UID: uid, GID: id(words[3])}
			found = true
			break
		}
	}
	if !found && !isNumber {
		return nil, errors.New("there is no user " + name)
	} else if !found {
		u.UID, u.GID = uint32(number), uint32(number)
	}
	if hasGroup {
		return u, u.setGroup(groupName, group)
	}
	u.addGroups(group)
	return u, nil
}

func (u *User) setGroup(name, group string) error {
	if number, err := strconv.ParseUint(name, 10, 31); err == nil {
		u.GID = uint32(number)
		return nil
	}
	for words := range records(group, 4) {
		if words[0] == name {
			u.GID = id(words[2])
			return nil
		}
	}
	return errors.New("there is no group " + name)
}

// addGroups adds the groups that name the user as a member.
func (u *User) addGroups(group string) {
	for words := range records(group, 4) {
		for _, member := range strings.Split(words[3], ",") {
			if member == u.Name && member != "" {
				u.Groups = append(u.Groups, id(words[2]))
			}
		}
	}
}

// records are the lines of a file like /etc/passwd that have this many fields.
func records(path string, fields int) func(func([]string) bool) {
	text, _ := os.ReadFile(path)
	return func(yield func([]string) bool) {
		for line := range strings.Lines(string(text)) {
			words := strings.Split(strings.TrimRight(line, "\n"), ":")
			if len(words) >= fields && !yield(words) {
				return
			}
		}
	}
}

// id is a number of passwd or group; one that cannot be read is nobody's.
func id(text string) uint32 {
	number, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 65534
	}
	return uint32(number)
}
