package pasta

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// credential reads UID, UID:GID, LOGIN or LOGIN:GROUP, as conf_runas() of pasta's conf.c does: a number may be decimal,
// octal (0...) or hexadecimal (0x...), and is the group too where none is given, whatever the group of the user that
// has it; a login has its user's group; and a login of root is refused, where the number 0 is not.
func credential(spec string) (*syscall.Credential, error) {
	login, group, grouped := strings.Cut(spec, ":")
	c := new(syscall.Credential)
	if uid, err := strconv.ParseUint(login, 0, 32); err == nil {
		c.Uid, c.Gid = uint32(uid), uint32(uid)
	} else if c.Uid, c.Gid, err = ids(login); err != nil {
		return nil, fmt.Errorf("invalid --runas option: %s: %w", spec, err)
	}
	if !grouped {
		return c, nil
	}
	if gid, err := strconv.ParseUint(group, 0, 32); err == nil {
		c.Gid = uint32(gid)
		return c, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return nil, fmt.Errorf("invalid --runas option: %s: there is no group %s", spec, group)
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	c.Gid = uint32(gid)
	return c, err
}

// ids are those of a login.
func ids(login string) (uid, gid uint32, err error) {
	u, err := user.Lookup(login)
	if err != nil {
		return 0, 0, fmt.Errorf("there is no user %s", login)
	}
	id, err1 := strconv.ParseUint(u.Uid, 10, 32)
	group, err2 := strconv.ParseUint(u.Gid, 10, 32)
	switch {
	case err1 != nil || err2 != nil:
		return 0, 0, fmt.Errorf("the ids of %s are no numbers", login)
	case id == 0:
		return 0, 0, fmt.Errorf("%s is root, which pasta does not become by name: give --runas 0 for that", login)
	}
	return uint32(id), uint32(group), nil
}

// is says whether this process is what --runas asks for.
func (o *Options) is(spec string) bool {
	c, err := credential(spec)
	return err == nil && int(c.Uid) == os.Geteuid() && int(c.Gid) == os.Getegid()
}

// again runs the same program as another user, and has its status.
func (o *Options) again() error {
	c, err := credential(o.RunAs)
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        os.Args,
		Env:         os.Environ(),
		Stdin:       os.Stdin,
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Credential: c},
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("can't become UID %d and GID %d: %w; only root can", c.Uid, c.Gid, err)
	}
	return statusOf(cmd.Wait())
}
