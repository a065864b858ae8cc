package sandbox

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// Spec is what is to run, and how.
type Spec struct {
	Command     []string
	Env         []string // all of it; PATH in it finds the command
	WorkingDir  string
	Rootfs      string // "" is the caller's file system
	Hostname    string
	Domainname  string
	User        string // "UID[:GID]" to run the command as; "" is root in the sandbox
	UserNS      string // UserNSAuto, which "" is as well, UserNSHost or UserNSRange
	TTY         bool   // a terminal of its own; Stdin and Stdout are then this end of it
	HostNetwork bool   // the caller's network namespace
	JoinNet     *Target
	// Limits are the command's; nil: none but those of its namespaces.
	Limits *Limits
	// AllSystemPaths shows all of /proc and /sys, and lets root in the sandbox write there what the kernel allows it.
	AllSystemPaths bool
	// NoProc leaves /proc empty where Rootfs is set and the kernel refuses a fresh one. The mounts are not locked then.
	NoProc bool
	// Devices are further devices of the host's that a sandbox with a Rootfs has.
	Devices []string
	// Hidden are files and directories that a sandbox without Rootfs finds empty.
	Hidden []string

	Stdin  *os.File // nil is /dev/null
	Stdout *os.File
	Stderr *os.File
}

// orders is what the init reads from its control socket.
type orders struct {
	Spec     Spec
	Hostname string   // "" is the spec's
	Etc      []string // files of /etc that the init makes and this end writes
}

// report is what the init writes to it.
type report struct {
	Error string `json:",omitempty"`
	Code  int    `json:",omitempty"` // exit status to end with, where Error is set
	// Furnished: the descriptors of the files in orders.Etc come with it, and that of a terminal; it waits for orders again.
	Furnished bool `json:",omitempty"`
	Ready     bool `json:",omitempty"` // the command runs
}

// ExitError says that the command could not be started; Code is the exit status a shell would give.
type ExitError struct {
	Code int // 125 the sandbox, 126 not executable, 127 not found
	Msg  string
}

// Error is the message.
func (e *ExitError) Error() string { return e.Msg }

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
	etc etcFiles
}

const allNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWCGROUP

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

// launch starts the role and waits for it on one thread: the kernel sends the death signal when the thread that made the
// child ends, not the process (prctl(2), PR_SET_PDEATHSIG).
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
	var r report
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

// await waits for the end of the role.
func (p *Process) await(inChild bool) (ws syscall.WaitStatus) {
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
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EACCES) {
		for _, r := range Check() {
			if !r.OK && r.Needed {
				return fmt.Errorf("namespaces cannot be made: %s; %s", r.Detail, r.Fix)
			}
		}
	}
	return fmt.Errorf("namespaces cannot be made: %w", err)
}

// Pid is the init's process id, as the caller's pid namespace sees it.
func (p *Process) Pid() int { return p.pid }

// Proceed lets the init go on with files, and returns when the command runs, or an *ExitError.
func (p *Process) Proceed(files Files) error {
	o := orders{p.spec, files.Hostname, files.names()}
	if err := p.order(o); err != nil {
		return err
	}
	r, received, err := p.receive()
	if err == nil && r.Furnished {
		if err := p.takeFiles(o.Etc, received); err != nil {
			return &ExitError{125, err.Error()}
		}
		if err := p.WriteFiles(files); err != nil {
			return &ExitError{125, err.Error()}
		}
		if err := p.order(o); err != nil {
			return err
		}
		r, received, err = p.receive()
	}
	closeAll(received)
	if err != nil {
		return fmt.Errorf("the sandbox's init ended before the command ran: %w", err)
	}
	_ = p.control.Close()
	if r.Error != "" {
		return &ExitError{r.Code, r.Error}
	}
	p.runs()
	return nil
}

// takeFiles takes what the init has handed out: the files of /etc by these names, and a terminal where one was made inside.
func (p *Process) takeFiles(names []string, files []*os.File) error {
	want := len(names)
	if p.spec.terminalInside() {
		want++
	}
	if len(files) != want {
		closeAll(files)
		return fmt.Errorf("%d files came from the sandbox's init, not %d", len(files), want)
	}
	p.etc.Lock()
	for i, name := range names {
		p.etc.files[name] = files[i]
	}
	p.etc.Unlock()
	if p.spec.terminalInside() {
		p.term.attach(files[want-1])
	}
	return nil
}

// terminalInside says whether the command's terminal is one of the sandbox's own /dev/pts.
func (s Spec) terminalInside() bool { return s.TTY && s.Rootfs != "" }

// order sends the role what it is to do.
func (p *Process) order(o any) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return &ExitError{125, fmt.Sprintf("command and environment have %d bytes; %d are possible", len(b), maxMessage)}
	}
	if _, err := p.control.Write(b); err != nil {
		return fmt.Errorf("the sandbox's init is gone: %w", err)
	}
	return nil
}

// receive reads a report and the files that come with it, which are the caller's.
func (p *Process) receive() (r report, files []*os.File, err error) {
	buf := make([]byte, maxMessage)
	n, files, err := readFiles(p.control, buf)
	if err != nil {
		return r, nil, err
	}
	if n == 0 {
		return r, nil, io.EOF
	}
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		closeAll(files)
		return r, nil, err
	}
	return r, files, nil
}

// runs says that the command runs, and sends it the signals that came before.
func (p *Process) runs() {
	p.signals.Lock()
	defer p.signals.Unlock()
	p.signals.running = true
	for _, s := range p.signals.early {
		_ = syscall.Kill(p.pid, s)
	}
	p.signals.early = nil
}

// Signal passes a signal to the command, once it runs.
func (p *Process) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("unknown signal %v", sig)
	}
	p.signals.Lock()
	defer p.signals.Unlock()
	select {
	case <-p.done:
		return os.ErrProcessDone // its pid may be somebody else's
	default:
	}
	if !p.signals.running && s != syscall.SIGKILL {
		if len(p.signals.early) < maxEarlySignals {
			p.signals.early = append(p.signals.early, s)
		}
		return nil
	}
	return syscall.Kill(p.pid, s)
}

// maxEarlySignals bounds the signals that wait for the command.
const maxEarlySignals = 64

// Kill ends the sandbox with all processes in it, and waits for that.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
	_ = p.control.Close()
	p.etc.close()
	p.term.close()
}

// Wait returns the command's exit status, 128 and the signal's number where a signal ended it, once all its
// output has been passed on.
func (p *Process) Wait() (int, error) {
	<-p.done
	p.etc.close()
	p.term.drain()
	if p.status.Signaled() {
		return 128 + int(p.status.Signal()), nil
	}
	return p.status.ExitStatus(), nil
}

// connectStreams gives the init its standard streams: the caller's, or one end of a new terminal.
func (p *Process) connectStreams() error {
	if p.spec.terminalInside() {
		p.term = newTerminal(nil, nil, p.spec.Stdin, p.spec.Stdout) // Proceed attaches it
		return nil
	}
	if !p.spec.TTY {
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = nilFile(p.spec.Stdin), nilFileW(p.spec.Stdout), nilFileW(p.spec.Stderr)
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

// ForwardSignals passes this process's signals on until the returned function is called.
func (p *Process) ForwardSignals() (stop func()) {
	ch := make(chan os.Signal, 16)
	signal.Notify(ch)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-ch:
				switch s {
				case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU: // the runtime's, the shell's
				case unix.SIGWINCH:
					p.term.resize()
				default:
					_ = p.Signal(s)
				}
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(ch); close(done) }
}

// userIDs reads "UID[:GID]".
func userIDs(user string) (uid, gid int, err error) {
	u, g, ok := strings.Cut(user, ":")
	if _, err := fmt.Sscanf(u, "%d", &uid); err != nil || uid < 0 {
		return 0, 0, fmt.Errorf("user %q: give a number, or UID:GID", user)
	}
	gid = uid
	if ok {
		if _, err := fmt.Sscanf(g, "%d", &gid); err != nil || gid < 0 {
			return 0, 0, fmt.Errorf("user %q: give numbers UID:GID", user)
		}
	}
	return uid, gid, nil
}
