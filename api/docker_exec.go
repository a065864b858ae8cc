package api

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"

	"github.com/moby/moby/api/types/container"

	"github.com/usernet/usernet/internal/errdefs"
)

// Docker's exec: one request makes a command, one starts it and becomes its streams, and more look at it.

func (s *Server) dockerExecRoutes() []dockerRoute {
	return []dockerRoute{
		{"POST /containers/{ref}/exec", nil, nil, s.createExec},
		{"POST /exec/{id}/start", nil, nil, s.startExec},
		{"GET /exec/{id}/json", nil, nil, get(s.inspectExec)},
		{"POST /exec/{id}/resize", kind("integer", "h", "w"), nil, s.resizeExec},
	}
}

func (s *Server) createExec(w http.ResponseWriter, r *http.Request) {
	var q struct {
		container.ExecCreateRequest
		Detach bool // clients send it, and say it once more when they start the command
	}
	err := readBody(r, &q)
	if err == nil && q.Privileged {
		err = errdefs.Invalid("privileged: a command has the container's privileges")
	}
	var id string
	if err == nil {
		id, err = s.b.CreateExec(r.Context(), ref(r), Exec{
			Command: q.Cmd, Env: q.Env, WorkingDir: q.WorkingDir, User: q.User, TTY: q.Tty,
			Stdin: q.AttachStdin, Stdout: q.AttachStdout, Stderr: q.AttachStderr && !q.Tty,
		})
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	reply(w, container.ExecCreateResponse{ID: id}, nil)
}

func (s *Server) inspectExec(r *http.Request) (any, error) {
	e, err := s.b.Exec(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return container.ExecInspectResponse{
		ID: e.ID, Running: e.Running, ExitCode: e.ExitCode, ContainerID: e.Container, Pid: e.Pid,
		OpenStdin: e.Stdin, OpenStdout: e.Stdout, OpenStderr: e.Stderr,
		ProcessConfig: &container.ExecProcessConfig{
			Tty: e.TTY, Entrypoint: e.Command[0], Arguments: e.Command[1:], User: e.User,
		},
	}, nil
}

// maxTerminal bounds the size of a terminal, in rows and columns: what TIOCSWINSZ has room for (ioctl_tty(2)).
const maxTerminal = 1<<16 - 1

func (s *Server) resizeExec(w http.ResponseWriter, r *http.Request) {
	rows, cols := intParam(r, "h", 0), intParam(r, "w", 0)
	err := errdefs.Invalid("invalid terminal size %dx%d", rows, cols)
	if rows >= 0 && cols >= 0 && rows <= maxTerminal && cols <= maxTerminal {
		err = s.b.ResizeExec(r.Context(), r.PathValue("id"), uint16(rows), uint16(cols))
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (s *Server) startExec(w http.ResponseWriter, r *http.Request) {
	var q container.ExecStartRequest
	id := r.PathValue("id")
	err := readBody(r, &q)
	var e Exec
	if err == nil {
		e, err = s.b.Exec(id)
	}
	if err != nil {
		fail(w, err)
		return
	}
	if q.Detach {
		if err := s.b.StartExec(r.Context(), id, true, nil); err != nil {
			fail(w, err)
			return
		}
		w.WriteHeader(http.StatusOK)
		return
	}
	if e.Running || e.ExitCode != nil {
		fail(w, errdefs.Conflict("exec instance %s has already run", id))
		return
	}
	p, err := newExecPipes(e)
	if err != nil {
		fail(w, err)
		return
	}
	defer p.close()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, execHead(r, e.TTY)); err != nil {
		return
	}
	ctx := context.WithoutCancel(r.Context()) // the request ends with the hijacking
	if err := s.b.StartExec(ctx, id, false, p.theirs); err != nil {
		// As Docker: it is too late for a status, and the client asks for the exit status.
		out := &streamWriter{w: conn, mu: new(sync.Mutex), stream: streamStdout, raw: e.TTY}
		_, _ = io.WriteString(out, err.Error()+"\r\n") // a client that is gone
		return
	}
	p.closeTheirs()
	if q.ConsoleSize != nil && e.TTY && q.ConsoleSize[0] <= maxTerminal && q.ConsoleSize[1] <= maxTerminal {
		_ = s.b.ResizeExec(ctx, id, uint16(q.ConsoleSize[0]), uint16(q.ConsoleSize[1])) // it may have ended
	}
	p.carry(conn, buffered, e.TTY)
	s.b.WaitExec(id) // so that the client, which asks for the status next, gets it
}

// execHead begins the answer that becomes a command's streams.
func execHead(r *http.Request, terminal bool) string {
	kind := "application/vnd.docker.multiplexed-stream"
	if terminal || before(r, "1.42") {
		kind = "application/vnd.docker.raw-stream"
	}
	if r.Header.Get("Upgrade") == "" {
		return "HTTP/1.1 200 OK\r\nContent-Type: " + kind + "\r\n\r\n"
	}
	return "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + kind + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
}

// execPipes are the streams of a command. A nil one is none.
type execPipes struct {
	stdin          *os.File // what is written is the command's input
	stdout, stderr *os.File // what is read is its output
	theirs         []*os.File
}

func newExecPipes(e Exec) (*execPipes, error) {
	p := new(execPipes)
	for _, s := range []struct {
		is    bool
		ours  **os.File
		input bool
	}{{e.Stdin, &p.stdin, true}, {e.Stdout, &p.stdout, false}, {e.Stderr, &p.stderr, false}} {
		if !s.is {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			p.close()
			return nil, fmt.Errorf("pipe for the command: %w", err)
		}
		if s.input {
			r, w = w, r
		}
		*s.ours, p.theirs = r, append(p.theirs, w)
	}
	return p, nil
}

func (p *execPipes) closeTheirs() {
	for _, f := range p.theirs {
		_ = f.Close()
	}
	p.theirs = nil
}

func (p *execPipes) close() {
	p.closeTheirs()
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// carry copies between the client and the command until the command's output has ended.
func (p *execPipes) carry(conn net.Conn, buffered io.Reader, raw bool) {
	if p.stdin != nil {
		go func() {
			_, _ = io.Copy(p.stdin, buffered) // which reads the connection behind what was read already
			_ = p.stdin.Close()
		}()
	}
	var out sync.WaitGroup
	var mu sync.Mutex
	for stream, f := range map[byte]*os.File{streamStdout: p.stdout, streamStderr: p.stderr} {
		if f == nil {
			continue
		}
		out.Go(func() {
			w := &streamWriter{w: conn, mu: &mu, stream: stream, raw: raw}
			if _, err := io.Copy(w, f); err != nil {
				_ = f.Close() // nobody reads any more: the command gets EPIPE
			}
		})
	}
	out.Wait()
}

// streamWriter puts the header of Docker's multiplexed output before each write.
type streamWriter struct {
	w      io.Writer
	mu     *sync.Mutex // held while one part is written
	stream byte
	raw    bool
}

// Write implements io.Writer.
func (s *streamWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	part := b
	if !s.raw {
		header := binary.BigEndian.AppendUint32([]byte{s.stream, 0, 0, 0}, uint32(len(b)))
		part = slices.Concat(header, b)
	}
	if _, err := s.w.Write(part); err != nil {
		return 0, err
	}
	return len(b), nil
}
