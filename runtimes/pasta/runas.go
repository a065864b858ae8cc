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

// credential reads UID, UID:GID, LOGIN or LOGIN:GROUP. A group that is not given is the user's.
func credential(spec string) (*syscall.Credential, error) {
	login, group, grouped := strings.Cut(spec, ":")
	c := new(syscall.Credential)
	u, err := user.Lookup(login)
	uid, e := strconv.ParseUint(login, 10, 32)
	switch {
	case e == nil: // its user, or one that has no name
		c.Uid, c.Gid = uint32(uid), uint32(uid)
		u, err = user.LookupId(login)
	case err != nil:
		return nil, fmt.Errorf("invalid --runas: %s: there is no user %s", spec, login)
	}
	if err == nil {
		uid, e1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, e2 := strconv.ParseUint(u.Gid, 10, 32)
		if e1 != nil || e2 != nil {
			return nil, fmt.Errorf("invalid --runas: %s: the ids of %s are no numbers", spec, login)
		}
		c.Uid, c.Gid = uint32(uid), uint32(gid)
	}
	if !grouped {
		return c, nil
	}
	if gid, err := strconv.ParseUint(group, 10, 32); err == nil {
		c.Gid = uint32(gid)
		return c, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return nil, fmt.Errorf("invalid --runas: %s: there is no group %s", spec, group)
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	c.Gid = uint32(gid)
	return c, err
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
