package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/sandbox/entry"
)

// probeTime bounds how long a probe may take.
const probeTime = 10 * time.Second

// probed is what a probe found in namespaces of its own: what the kernel says to each step, "" where it allows it.
type probed struct {
	Mount    string // any mount at all
	Hostname string // a host name of its own
	Proc     string // a /proc of its own
}

// probe makes the namespaces that a sandbox has, and tries in them what a sandbox's init does. An error says that they
// cannot be made.
func probe() (found probed, err error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return found, err
	}
	defer ours.Close()
	cmd, err := role{name: roleProbe, control: theirs}.command()
	if err != nil {
		_ = theirs.Close()
		return found, err
	}
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | allNamespaces
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return found, err
	}
	defer cmd.Wait()         // what it found counts
	defer cmd.Process.Kill() // it has ended, or is late
	if err := ours.SetReadDeadline(time.Now().Add(probeTime)); err != nil {
		return found, err
	}
	buf := make([]byte, maxMessage)
	n, err := ours.Read(buf)
	if err == nil {
		err = json.Unmarshal(buf[:n], &found)
	}
	if err != nil {
		return found, fmt.Errorf("nothing is heard of a process in new namespaces: %w", err)
	}
	return found, nil
}

// runProbe tries each step of an init that a filter on system calls or a container around this one may refuse.
func runProbe() error {
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("probe without a control socket: %w", err)
	}
	defer c.Close()
	if err := entry.Result(); err != nil {
		return err
	}
	found := probed{
		Mount:    text(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")),
		Hostname: text(unix.Sethostname([]byte("probe"))),
	}
	if found.Mount == "" {
		found.Proc = text(mountProc())
	}
	return SendMessage(c, found, nil)
}

// text is an error's, "" for none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// refusedByFilter says whether an error is one with which filters on system calls refuse.
func refusedByFilter(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS)
}
