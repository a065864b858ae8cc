package sandbox

import (
	"context"
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
	TTY         bool   // a terminal of its own; Stdin and Stdout are then this end of it
	HostNetwork bool   // the caller's network namespace
	JoinNet     *Target
	Stdin       *os.File // nil is /dev/null
	Stdout      *os.File
	Stderr      *os.File
}

// orders is what the init reads from its control socket.
type orders struct {
	Spec     Spec
	Hostname string   // "" is the spec's
	Etc      []string // files of /etc that the init makes and this end writes
}

// report is what the init (or the joiner) writes to it.
type report struct {
	Pid   int    `json:",omitempty"` // of the init, from the joiner
	Error string `json:",omitempty"`
	Code  int    `json:",omitempty"` // exit status to end with, where Error is set
	Etc   bool   `json:",omitempty"` // the descriptors of the files in orders.Etc come with it; an empty message lets it go on
	Ready bool   `json:",omitempty"` // the command runs
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
	done    chan struct{} // closed when the init has ended
	state   *os.ProcessState
	signals sync.Mutex
	etc     etcFiles
}

const allNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID

// Start makes the namespaces. The init in them waits for Proceed; nothing of the command runs yet.
func Start(ctx context.Context, spec Spec) (*Process, error) {
	if len(spec.Command) == 0 {
		return nil, &ExitError{125, "no command specified"}
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd, free, err := initCommand(spec, theirs)
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	defer free()
	p := &Process{control: ours, spec: spec, cmd: cmd, done: make(chan struct{}), etc: etcFiles{files: map[string]*os.File{}}}
	if err := p.connectStreams(); err != nil {
		_ = ours.Close()
		return nil, err
	}
	if err := p.launch(); err != nil {
		_ = ours.Close()
		p.term.close()
		return nil, startError(err)
	}
	p.term.started()
	p.pid = cmd.Process.Pid
	if spec.JoinNet != nil {
		var r report
		if err := p.receive(&r); err != nil || r.Error != "" || r.Pid == 0 {
			p.Kill()
			return nil, fmt.Errorf("network of the other container: %s", r.Error)
		}
		p.pid = r.Pid
	}
	return p, ctx.Err()
}

// initCommand is the command that becomes the init: cloned into new namespaces, or sent beside another sandbox's network.
func initCommand(spec Spec, control *os.File) (*exec.Cmd, func(), error) {
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if spec.JoinNet != nil {
		cmd, free, err := nsenter(*spec.JoinNet, roleJoin, control)
		if err == nil {
			cmd.SysProcAttr = attr
		}
		return cmd, free, err
	}
	attr.Cloneflags = unix.CLONE_NEWUSER | allNamespaces
	if !spec.HostNetwork {
		attr.Cloneflags |= unix.CLONE_NEWNET
	}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	return &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{"usernet-init", roleInit}, Env: ownEnv, ExtraFiles: []*os.File{control}, SysProcAttr: attr,
	}, func() {}, nil
}

// launch starts the init and waits for it on one thread: the kernel sends the death signal when the thread that
// made the child ends, not the process (prctl(2), PR_SET_PDEATHSIG).
func (p *Process) launch() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = p.cmd.Wait() // the state tells more than the error
		p.state = p.cmd.ProcessState
		close(p.done)
	}()
	return <-started
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
	names := files.names()
	b, err := json.Marshal(orders{p.spec, files.Hostname, names})
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return &ExitError{125, fmt.Sprintf("command and environment have %d bytes; %d are possible", len(b), maxMessage)}
	}
	if _, err := p.control.Write(b); err != nil {
		return fmt.Errorf("the sandbox's init is gone: %w", err)
	}
	var r report
	err = p.receive(&r, names...)
	if err == nil && r.Etc {
		if err = p.WriteFiles(files); err != nil {
			return &ExitError{125, err.Error()}
		}
		if _, err = p.control.Write([]byte("{}")); err == nil {
			r = report{}
			err = p.receive(&r)
		}
	}
	if err != nil {
		return fmt.Errorf("the sandbox's init ended before the command ran: %w", err)
	}
	_ = p.control.Close()
	if r.Error != "" {
		return &ExitError{r.Code, r.Error}
	}
	return nil
}

// receive reads a report, and takes the files that come with it.
func (p *Process) receive(r *report, etc ...string) error {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(maxFiles*4))
	n, oobn, _, _, err := p.control.ReadMsgUnix(buf, oob)
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	files, err := receivedFiles(oob[:oobn])
	if err == nil {
		err = json.Unmarshal(buf[:n], r)
	}
	if err == nil && len(files) > 0 && len(files) != len(etc) {
		err = fmt.Errorf("%d files came from it, not %d", len(files), len(etc))
	}
	if err != nil {
		closeAll(files)
		return err
	}
	p.etc.Lock()
	defer p.etc.Unlock()
	for i, f := range files {
		p.etc.files[etc[i]] = f
	}
	return nil
}

// Signal passes a signal to the command.
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
		return syscall.Kill(p.pid, s)
	}
}

// Kill ends the sandbox with all processes in it, and waits for that.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	_ = p.cmd.Process.Kill()
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
	ws, ok := p.state.Sys().(syscall.WaitStatus)
	if !ok {
		return 125, errors.New("no exit status")
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// connectStreams gives the init its standard streams: the caller's, or one end of a new terminal.
func (p *Process) connectStreams() error {
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
