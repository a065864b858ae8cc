package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/confine"
)

// Helper is the privilege-separated helper: a process that enters sandboxes for a daemon which has confined itself, and
// so can neither see the namespaces of other processes nor start programs. The only request that the helper accepts is
// for an agent in a sandbox; the daemon and the agent then speak to each other directly. The helper ends when the
// daemon does. opener.go says how it is confined itself.
//
// A nil Helper works: the process enters sandboxes itself.
type Helper struct {
	requester
	processes []*exec.Cmd
	closed    bool
}

// agentProcess is an agent that was started.
type agentProcess struct {
	kill func()
	wait func() (stderr string, err error)
}

// StartHelper starts one. Call it before the process confines itself.
func StartHelper() (*Helper, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	helperEnd, openerEnd, err := filePair()
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	defer helperEnd.Close()
	defer openerEnd.Close()
	h := &Helper{requester: requester{conn: ours}}
	for _, r := range []role{
		{name: roleOpener, control: openerEnd},
		{name: roleHelper, control: theirs, files: []*os.File{helperEnd}},
	} {
		cmd, err := r.command()
		if err == nil {
			cmd.Stderr = os.Stderr
			cmd.SysProcAttr.Setsid = true // signals from a terminal are for the daemon
			err = cmd.Start()
		}
		if err != nil {
			_ = theirs.Close()
			_ = helperEnd.Close()
			return nil, errors.Join(fmt.Errorf("starting the process that enters sandboxes: %w", err), h.Close())
		}
		h.processes = append(h.processes, cmd)
	}
	return h, nil
}

// filePair makes two connected sockets that keep messages apart, both to pass on.
func filePair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// Close ends the helper and waits for it.
func (h *Helper) Close() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	err := h.conn.Close()
	for _, cmd := range slices.Backward(h.processes) {
		_ = cmd.Wait() // its status says nothing that the daemon does not know
	}
	return err
}

// enter sends an agent in one of agentRoles, with the socket control, into t.
func (h *Helper) enter(t Target, name string, control *os.File) (*agentProcess, error) {
	if h == nil {
		inside, err := t.open()
		if err != nil {
			return nil, err
		}
		return startAgent(inside, name, control)
	}
	files := []*os.File{control}
	if t.File != nil {
		files = append(files, t.File)
	}
	answer, err := h.request(helperRequest{Target: t, Role: name}, files...)
	if err != nil {
		return nil, err
	}
	return &agentProcess{
		kill: func() { _ = answer.Close() },
		wait: func() (string, error) {
			r, err := reply(answer)
			return r.Stderr, err
		},
	}, nil
}

// Namespace returns what tells the namespace at path from others, as long as it exists: device and inode. The error is
// os.ErrNotExist where there is none; others say nothing about it.
func (h *Helper) Namespace(path string) (dev, ino uint64, err error) {
	if h == nil {
		return namespace(path)
	}
	answer, err := h.request(helperRequest{Path: path})
	if err != nil {
		return 0, 0, err
	}
	r, err := reply(answer)
	if r.Missing {
		err = fmt.Errorf("namespace %s: %w", path, os.ErrNotExist)
	}
	return r.Dev, r.Ino, err
}

func namespace(path string) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, fmt.Errorf("namespace %s: %w", path, err)
	}
	return uint64(st.Dev), st.Ino, nil
}

// helperRequest asks for an agent in Target, or where Path is set, for the namespace at it, or where Pid is set, for
// the namespaces of that process.
type helperRequest struct {
	Target Target
	Role   string
	Path   string
	Pid    int
}

// helperReply is how a request ended.
type helperReply struct {
	Stderr, Error string
	Dev, Ino      uint64
	Missing       bool       // there is nothing at the path
	Inside        Namespaces // of the process
}

// reply waits for the end of a request.
func reply(c *net.UnixConn) (helperReply, error) {
	defer c.Close()
	var r helperReply
	files, err := receive(c, &r)
	closeAll(files)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	return r, err
}

// maxStderr bounds the part of an agent's standard error that is passed on, in bytes.
const maxStderr = 16 << 10

// startAgent starts an agent as a child of this process, and closes the namespaces.
func startAgent(inside []*os.File, name string, control *os.File) (*agentProcess, error) {
	defer closeAll(inside)
	if !slices.Contains(agentRoles, name) {
		return nil, fmt.Errorf("no sandbox is entered as %q", name)
	}
	cmd, err := role{name: name, control: control, namespaces: inside}.command()
	if err != nil {
		return nil, err
	}
	stderr := new(bytes.Buffer)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	return &agentProcess{
		kill: func() { _ = cmd.Process.Kill() },
		wait: func() (string, error) {
			err := cmd.Wait()
			return strings.TrimSpace(string(stderr.Bytes()[:min(stderr.Len(), maxStderr)])), err
		},
	}, nil
}

// runHelper is the helper: it starts an agent for each request, until the daemon is gone.
func runHelper() error {
	useAllProcessors()
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("helper without a control socket: %w", err)
	}
	defer c.Close()
	o, err := unixConn(openerFD)
	if err != nil {
		return fmt.Errorf("helper without an opener: %w", err)
	}
	defer o.Close()
	if _, err := sealedProgram(); err != nil {
		return err
	}
	confine.Helper.Apply(confine.Paths{
		Read:     []string{"/proc"},
		Modify:   []string{"/proc/sys"},
		Devices:  []string{"/dev/net/tun"},
		Programs: libraries(),
	})
	opener := &requester{conn: o}
	return serveRequests(c, func(body []byte, answer *net.UnixConn, files []*os.File) {
		var q helperRequest
		var r helperReply
		err := json.Unmarshal(body, &q)
		switch {
		case err != nil:
		case len(files) == 2:
			q.Target.File = files[1]
			r.Stderr, err = runAgentFor(opener, q, answer, files[0])
		case len(files) == 1:
			r.Stderr, err = runAgentFor(opener, q, answer, files[0])
		case q.Pid != 0:
			r.Inside, err = opener.namespacesOf(q.Pid)
		default:
			r.Dev, r.Ino, err = opener.namespace(q.Path)
			r.Missing = errors.Is(err, os.ErrNotExist)
		}
		if err != nil {
			r.Error = err.Error()
		}
		_ = send(answer, r, nil) // the daemon may have lost interest
	})
}

// runAgentFor has an agent enter a sandbox, waits for it, and kills it when the daemon closes its end of answer.
func runAgentFor(
	opener *requester, q helperRequest, answer *net.UnixConn, control *os.File,
) (stderr string, err error) {
	open := opener.open
	if q.Target.File != nil { // it is open, so the opener is not needed
		open = Target.open
	}
	inside, err := open(q.Target)
	if err != nil {
		return "", err
	}
	agent, err := startAgent(inside, q.Role, control)
	_ = control.Close()
	if err != nil {
		return "", err
	}
	ctx, ended := context.WithCancel(context.Background())
	defer ended()
	go func() {
		_, _ = answer.Read(make([]byte, 1)) // returns when either side closes it
		if ctx.Err() == nil {
			agent.kill()
		}
	}()
	return agent.wait()
}
