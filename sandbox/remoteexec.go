package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"

	"github.com/usernet/usernet/internal/sockio"
)

// A daemon that has confined itself cannot enter a sandbox with a command. The process that started the sandbox can,
// and does so on request, if it was told that it may: an ExecServer. The request comes with the command's streams.

// ExecRequest is one more command for a running sandbox.
type ExecRequest struct {
	Command    []string
	Env        []string // besides that of the sandbox's command
	WorkingDir string   // "" is that of the sandbox's command
	User       string   // "" as well
	TTY        bool
	// Which of the streams come with the request, in this order; the others are /dev/null. With TTY, the output of the
	// terminal is Stdout.
	Stdin, Stdout, Stderr bool
	// Spec says what is to run and how, in the place of all above but the streams; nil: they do. It is for one who acts
	// for the user, which Secret shows. Such a command ends with the connection.
	Spec   *Spec  `json:",omitempty"`
	Secret string `json:",omitempty"`
}

// AddStreams gives spec the streams that came with the request as files, in the place of its own.
func (q ExecRequest) AddStreams(spec *Spec, files []*os.File) {
	spec.Stdin, spec.Stdout, spec.Stderr = nil, nil, nil
	for _, s := range []struct {
		is bool
		at **os.File
	}{{q.Stdin, &spec.Stdin}, {q.Stdout, &spec.Stdout}, {q.Stderr, &spec.Stderr}} {
		if s.is && len(files) > 0 {
			*s.at, files = files[0], files[1:]
		}
	}
}

// execMessage goes both ways once a request was made: the size of the terminal and signals in, what becomes of the
// command out.
type execMessage struct {
	Rows, Cols uint16 `json:",omitempty"`
	Signal     int    `json:",omitempty"`
	Pid        int    `json:",omitempty"` // it runs
	Ended      bool   `json:",omitempty"` // with Code; where it could not be started, with Error
	Code       int    `json:",omitempty"`
	Error      string `json:",omitempty"`
}

// ExecSocket is the name of the socket in a container's directory.
const ExecSocket = "exec"

// ExecServer starts commands for ExecRequests.
type ExecServer struct {
	listener *net.UnixListener
	dir      *os.File
	serves   sync.WaitGroup
	cancel   context.CancelFunc
}

// StartExec starts a command for a request. The files are those that came with it, which stay the caller's.
type StartExec func(ctx context.Context, q ExecRequest, files []*os.File) (*Process, error)

// ServeExec makes a socket with a name in the directory dir, and calls start for each request, until Close.
func ServeExec(dir, name string, start StartExec) (*ExecServer, error) {
	d, path, err := socketPath(dir, name)
	if err != nil {
		return nil, err
	}
	_ = os.Remove(path) // of an earlier run that was killed
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("socket for more commands in the container: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &ExecServer{listener: l, dir: d, cancel: cancel}
	s.serves.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			s.serves.Go(func() { serveExec(ctx, c, start) })
		}
	})
	return s, nil
}

// Close ends what waits, and waits for it. The commands have ended with the sandbox. Once more is no harm; a nil server
// has nothing to end.
func (s *ExecServer) Close() {
	if s == nil {
		return
	}
	_ = s.listener.Close()
	s.cancel()
	s.serves.Wait()
	_ = s.dir.Close()
}

// serveExec answers one request.
func serveExec(ctx context.Context, c *net.UnixConn, start StartExec) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, maxMessage)
	n, files, err := readFiles(c, buf)
	var q ExecRequest
	if err == nil {
		err = json.Unmarshal(buf[:n], &q)
	}
	if err != nil {
		closeAll(files)
		return
	}
	p, err := start(ctx, q, files)
	if err != nil {
		closeAll(files)
		e := &ExitError{Code: 126}
		if !errors.As(err, &e) {
			e = &ExitError{126, err.Error()}
		}
		_ = send(c, execMessage{Ended: true, Code: e.Code, Error: e.Msg}, nil) // the daemon may have given up
		return
	}
	_ = send(c, execMessage{Pid: p.Pid()}, nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		code, err := p.Wait()
		m := execMessage{Ended: true, Code: code}
		if err != nil {
			m.Code, m.Error = 126, err.Error()
		}
		closeAll(files)
		_ = send(c, m, nil)
	}()
	go func() {
		for {
			n, err := c.Read(buf)
			var m execMessage
			if err != nil || n == 0 || json.Unmarshal(buf[:n], &m) != nil {
				if q.Spec != nil {
					_ = p.Signal(syscall.SIGKILL) // or it has ended
				}
				return
			}
			if m.Signal != 0 {
				_ = p.Signal(syscall.Signal(m.Signal))
			}
			if m.Rows > 0 && m.Cols > 0 {
				p.resize(m.Rows, m.Cols)
			}
		}
	}()
	<-ended
}

// resize gives the command's terminal a size.
func (p *Process) resize(rows, cols uint16) {
	if p.term == nil {
		return
	}
	p.term.mu.Lock()
	defer p.term.mu.Unlock()
	if p.term.master != nil && !p.term.closed {
		_ = pty.Setsize(p.term.master, &pty.Winsize{Rows: rows, Cols: cols}) // it may have ended
	}
}

// RemoteExec is a command that an ExecServer has started.
type RemoteExec struct {
	Pid  int
	conn *net.UnixConn
}

// RequestExec has the process that listens at the socket with a name in dir start a command with these files, which
// stay the caller's. An *ExitError says that it could not.
func RequestExec(ctx context.Context, dir, name string, q ExecRequest, files []*os.File) (*RemoteExec, error) {
	b, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	if len(b) > maxMessage {
		return nil, fmt.Errorf("command and environment have %d bytes; %d are possible", len(b), maxMessage)
	}
	d, path, err := socketPath(dir, name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("the process that started the container takes no commands: %w", err)
	}
	c, ok := nc.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("no Unix socket"), nc.Close())
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if _, err := sockio.WriteRights(c, b, fds...); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	r := &RemoteExec{conn: c}
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	m, err := r.receive()
	stop()
	switch {
	case err != nil:
		return nil, errors.Join(err, c.Close())
	case m.Ended:
		return nil, errors.Join(&ExitError{m.Code, m.Error}, c.Close())
	}
	r.Pid = m.Pid
	return r, nil
}

func (r *RemoteExec) receive() (m execMessage, err error) {
	buf := make([]byte, maxMessage)
	n, err := r.conn.Read(buf)
	if err != nil {
		return m, fmt.Errorf("the process that started the container does not answer: %w", err)
	}
	return m, json.Unmarshal(buf[:n], &m)
}

// Resize gives the command's terminal a size.
func (r *RemoteExec) Resize(rows, cols uint16) error {
	return send(r.conn, execMessage{Rows: rows, Cols: cols}, nil)
}

// Signal sends the command a signal.
func (r *RemoteExec) Signal(s syscall.Signal) error {
	return send(r.conn, execMessage{Signal: int(s)}, nil)
}

// Wait returns the command's exit status, and closes the connection. Where ctx ends first, the command goes on.
func (r *RemoteExec) Wait(ctx context.Context) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = r.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	m, err := r.receive()
	return m.Code, errors.Join(err, r.conn.Close())
}
