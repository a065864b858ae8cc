package sandbox

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/errdefs"
)

// Process is a sandbox's init, and through it the command.
type Process struct {
	pid     int
	control *net.UnixConn
	spec    Spec
	cmd     *exec.Cmd
	term    *terminal
	done    chan struct{}      // closed when the init has ended
	status  syscall.WaitStatus // once done
	signals struct {
		sync.Mutex
		running bool             // the command has started
		early   []syscall.Signal // came before
	}
	etc      etcFiles
	mounts   *os.File       // the mount namespace that the init has left; nil: it is closed. etc's lock guards it
	closing  sync.WaitGroup // the goroutine that closes mounts
	prepared bool           // the init has set up the sandbox
}

const allNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID |
	unix.CLONE_NEWCGROUP

// Start makes the namespaces. The init in them waits for Proceed; nothing of the command runs yet.
func Start(ctx context.Context, spec Spec) (*Process, error) {
	if len(spec.Command) == 0 {
		return nil, &ExitError{125, "no command specified"}
	}
	r := role{name: roleInit, makes: unix.CLONE_NEWUSER | allNamespaces}
	switch {
	case spec.JoinNet != nil:
		inside, err := spec.JoinNet.open()
		if err != nil {
			return nil, err
		}
		defer closeAll(inside)
		r.makes, r.namespaces, r.cloneFlags = 0, inside, allNamespaces
	case !spec.HostNetwork:
		r.makes |= unix.CLONE_NEWNET
	}
	p, err := startRole(r, spec)
	if err != nil {
		return nil, startError(err)
	}
	return p, ctx.Err()
}

// startRole starts a role that lives as long as this process at most, with the streams of spec.
func startRole(r role, spec Spec) (*Process, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	r.control = theirs
	p := &Process{control: ours, spec: spec, done: make(chan struct{}), etc: etcFiles{files: map[string]*os.File{}}}
	if p.cmd, err = r.command(); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	attr := p.cmd.SysProcAttr
	attr.Setsid, attr.Pdeathsig, attr.Cloneflags = true, syscall.SIGKILL, r.makes
	leave, err := enterCgroup(attr, spec.Cgroup)
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	defer leave()
	var ids idMaps
	if r.makes&unix.CLONE_NEWUSER != 0 {
		if ids, err = mapsFor(spec); err != nil {
			return nil, errors.Join(err, ours.Close())
		}
		if ids.subordinate {
			attr.AmbientCaps, attr.Ptrace = allCapabilities(), mayTrace()
		} else {
			attr.UidMappings, attr.GidMappings = ids.uids, ids.gids
		}
	}
	if err := p.connectStreams(); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	if err := p.launch(r.cloneFlags != 0, theirs, ids); err != nil {
		p.term.close()
		_ = ours.Close()
		if errors.Is(err, errIDs) && (spec.UserNS == "" || spec.UserNS == UserNSAuto) {
			spec.UserNS = UserNSHost // /etc/subuid promises what the kernel does not allow here, as within a container
			return startRole(r, spec)
		}
		return nil, err
	}
	p.term.started()
	return p, nil
}

// launch starts the role and waits for it on one thread: the kernel sends the death signal when the thread that made
// the child ends, not the process (prctl(2), PR_SET_PDEATHSIG).
func (p *Process) launch(inChild bool, theirs *os.File, ids idMaps) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		if err == nil {
			p.pid = p.cmd.Process.Pid
			_ = theirs.Close()
		}
		if err == nil && ids.subordinate {
			if err = ids.install(p.pid, p.cmd.SysProcAttr.Ptrace); err != nil {
				_ = p.cmd.Process.Kill()
				_ = p.cmd.Wait()
			}
		}
		if err == nil && inChild {
			err = p.awaitChild()
		}
		started <- err
		if err != nil {
			return
		}
		p.status = p.await(inChild)
		close(p.done)
	}()
	return <-started
}

// awaitChild learns the process id of the child in which the role goes on, and waits for the process that made it.
func (p *Process) awaitChild() error {
	buf := make([]byte, maxMessage)
	n, err := p.control.Read(buf)
	var r startReply
	switch {
	case err == nil && n == 4: // entry.Steps
		p.pid = int(binary.NativeEndian.Uint32(buf))
		_ = p.cmd.Wait()
		return nil
	case err == nil && json.Unmarshal(buf[:n], &r) == nil && r.Error != "":
		err = errors.New(r.Error)
	case err == nil:
		err = errNoAnswer
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	return err
}

// await waits for the end of the role: first in the runtime's poller, since a goroutine in wait4(2) keeps its processor
// from others for up to 10 ms (runtime.sysmon), and there is work to do just when the role has started.
func (p *Process) await(inChild bool) (ws syscall.WaitStatus) {
	if fd, err := unix.PidfdOpen(p.pid, unix.PIDFD_NONBLOCK); err == nil {
		f := os.NewFile(uintptr(fd), "pidfd")
		_ = pollEnd(f) // an error is that of no poller; wait4(2) waits then
		_ = f.Close()
	}
	if !inChild {
		_ = p.cmd.Wait() // the state tells more than the error
		ws, _ = p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		return ws
	}
	for {
		if _, err := syscall.Wait4(p.pid, &ws, 0, nil); !errors.Is(err, syscall.EINTR) {
			return ws
		}
	}
}

func startError(err error) error {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) ||
		errors.Is(err, syscall.EACCES) {
		for _, r := range Check() {
			if !r.OK && r.Needed {
				return errdefs.About(errdefs.TopicNamespaces, fmt.Errorf("namespaces cannot be made: %s; %s",
					r.Detail, r.Fix))
			}
		}
	}
	return errdefs.About(errdefs.TopicNamespaces, fmt.Errorf("namespaces cannot be made: %w", err))
}

// Pid is the init's process id, as the caller's pid namespace sees it.
func (p *Process) Pid() int { return p.pid }

// connectStreams gives the init its standard streams: the caller's, or one end of a new terminal.
func (p *Process) connectStreams() error {
	if p.spec.terminalInside() {
		p.term = newTerminal(nil, nil, p.spec.Stdin, p.spec.Stdout) // Proceed attaches it
		return nil
	}
	if !p.spec.TTY {
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = nilFile(
			p.spec.Stdin), nilFileW(p.spec.Stdout), nilFileW(p.spec.Stderr)
		return nil
	}
	master, slave, err := pty.Open()
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	p.term = newTerminal(master, slave, p.spec.Stdin, p.spec.Stdout)
	return nil
}
