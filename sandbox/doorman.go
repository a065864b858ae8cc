package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Doorman is a process apart that enters sandboxes for a daemon that has confined itself: Landlock keeps a process from
// the namespaces of all processes outside of its domain (hook_ptrace_access_check in security/landlock/task.c), and the
// filter on system calls from starting programs. All that the doorman can be asked for is an agent in a sandbox; what the
// agent then does is between it and the daemon. It ends when the daemon does.
//
// A nil Doorman works: the process enters sandboxes itself.
type Doorman struct {
	mu   sync.Mutex // one message at a time
	conn *net.UnixConn
	cmd  *exec.Cmd
}

// visit is one agent on its way.
type visit struct {
	kill func()
	wait func() (stderr string, err error)
}

// errNoDoorman says what is wrong when the process that enters sandboxes was ended.
var errNoDoorman = errors.New("the process that enters sandboxes for the daemon has ended: start the daemon again")

// StartDoorman starts one. Call it before the process confines itself.
func StartDoorman() (*Doorman, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd, err := role{name: roleDoorman, control: theirs}.command()
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr.Setsid = true // signals from a terminal are for the daemon
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the process that enters sandboxes: %w", err), ours.Close())
	}
	return &Doorman{conn: ours, cmd: cmd}, nil
}

// Close ends the doorman and waits for it.
func (d *Doorman) Close() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return nil
	}
	err := d.conn.Close()
	_ = d.cmd.Wait() // its status says nothing that the daemon does not know
	d.cmd = nil
	return err
}

// enter sends an agent in one of the roles in visitors, with the socket control, into t.
func (d *Doorman) enter(t Target, role string, control *os.File) (*visit, error) {
	if d == nil {
		return enter(t, role, control)
	}
	ours, err := d.ask(errand{Target: t, Role: role}, control)
	if err != nil {
		return nil, err
	}
	return &visit{
		kill: func() { _ = ours.Close() },
		wait: func() (string, error) {
			e, err := hear(ours)
			return e.Stderr, err
		},
	}, nil
}

// Namespace returns what tells the namespace at path from others, as long as it exists: device and inode. The error is
// os.ErrNotExist where there is none; others say nothing about it.
func (d *Doorman) Namespace(path string) (dev, ino uint64, err error) {
	if d == nil {
		return namespace(path)
	}
	ours, err := d.ask(errand{Path: path}, nil)
	if err != nil {
		return 0, 0, err
	}
	e, err := hear(ours)
	if e.Missing {
		err = fmt.Errorf("namespace %s: %w", path, os.ErrNotExist)
	}
	return e.Dev, e.Ino, err
}

func namespace(path string) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, fmt.Errorf("namespace %s: %w", path, err)
	}
	return uint64(st.Dev), st.Ino, nil
}

// visitors are the roles in which a sandbox may be entered.
var visitors = []string{roleAgent, roleSockets}

// errand is what the doorman is asked for: an agent in Target, or where Path is set, the namespace at it.
type errand struct {
	Target Target
	Role   string
	Path   string
}

// end is how an errand ended, as the doorman reports it.
type end struct {
	Stderr, Error string
	Dev, Ino      uint64
	Missing       bool // there is nothing at the path
}

// ask sends the doorman on an errand, with an agent's socket where it needs one, and returns where it reports.
func (d *Doorman) ask(e errand, control *os.File) (*net.UnixConn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	b, err := json.Marshal(e)
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	fds := []int{int(theirs.Fd())}
	if control != nil {
		fds = append(fds, int(control.Fd()))
	}
	d.mu.Lock()
	_, _, err = d.conn.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	d.mu.Unlock()
	if err != nil {
		return nil, errors.Join(errNoDoorman, err, ours.Close())
	}
	return ours, nil
}

// hear waits for the report of an errand.
func hear(c *net.UnixConn) (end, error) {
	defer c.Close()
	buf := make([]byte, maxMessage)
	n, err := c.Read(buf)
	if err != nil || n == 0 {
		return end{}, errNoDoorman
	}
	var e end
	if err := json.Unmarshal(buf[:n], &e); err != nil {
		return end{}, err
	}
	if e.Error != "" {
		return e, errors.New(e.Error)
	}
	return e, nil
}

// maxStderr bounds what of an agent's complaint is passed on, in bytes.
const maxStderr = 16 << 10

// enter starts an agent as a child of this process.
func enter(t Target, name string, control *os.File) (*visit, error) {
	if !slices.Contains(visitors, name) {
		return nil, fmt.Errorf("no sandbox is entered as %q", name)
	}
	inside, err := t.open()
	if err != nil {
		return nil, err
	}
	defer closeAll(inside)
	cmd, err := role{name: name, control: control, namespaces: inside}.command()
	if err != nil {
		return nil, err
	}
	stderr := new(bytes.Buffer)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	return &visit{
		kill: func() { _ = cmd.Process.Kill() },
		wait: func() (string, error) {
			err := cmd.Wait()
			return strings.TrimSpace(string(stderr.Bytes()[:min(stderr.Len(), maxStderr)])), err
		},
	}, nil
}

// runDoorman is the doorman: it starts an agent for each message, until the daemon is gone.
func runDoorman() error {
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("doorman without a control socket: %w", err)
	}
	defer c.Close()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	var agents sync.WaitGroup
	defer agents.Wait()
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(maxFiles*4))
	for {
		n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		files, err := receivedFiles(oob[:oobn])
		var e errand
		if err != nil || len(files) == 0 || len(files) > 2 || json.Unmarshal(buf[:n], &e) != nil {
			closeAll(files)
			continue // the daemon sees its sockets closed
		}
		agents.Go(func() { run(e, files) })
	}
}

// run does one errand and reports its end.
func run(e errand, files []*os.File) {
	conn, err := net.FileConn(files[0])
	_ = files[0].Close()
	if err != nil {
		closeAll(files[1:])
		return
	}
	defer conn.Close()
	var r end
	if len(files) == 2 {
		r.Stderr, err = visitFor(conn, e, files[1])
	} else {
		r.Dev, r.Ino, err = namespace(e.Path)
		r.Missing = errors.Is(err, os.ErrNotExist)
	}
	if err != nil {
		r.Error = err.Error()
	}
	if b, err := json.Marshal(r); err == nil {
		_, _ = conn.Write(b)
	}
}

// visitFor has an agent enter a sandbox, and kills it when the daemon closes its end of conn.
func visitFor(conn net.Conn, e errand, control *os.File) (stderr string, err error) {
	v, err := enter(e.Target, e.Role, control)
	_ = control.Close()
	if err != nil {
		return "", err
	}
	ctx, ended := context.WithCancel(context.Background())
	defer ended()
	go func() {
		_, _ = conn.Read(make([]byte, 1)) // returns when either side closes it
		if ctx.Err() == nil {
			v.kill()
		}
	}()
	return v.wait()
}
