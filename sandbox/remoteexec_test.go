package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// startPlain starts a request's command as what it is, without a sandbox.
func startPlain(_ context.Context, q ExecRequest, files []*os.File) (*Process, error) {
	var spec Spec
	q.AddStreams(&spec, files)
	cmd := exec.Command(q.Command[0], q.Command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nilFile(spec.Stdin), nilFileW(spec.Stdout), nilFileW(spec.Stderr)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{pid: cmd.Process.Pid, done: make(chan struct{})}
	p.signals.running = true
	go func() {
		_ = cmd.Wait()
		p.status = cmd.ProcessState.Sys().(syscall.WaitStatus)
		close(p.done)
	}()
	return p, nil
}

// serveIn serves requests in a directory of the test's.
func serveIn(t *testing.T, start StartExec) (dir string, s *ExecServer) {
	t.Helper()
	dir = t.TempDir()
	s, err := ServeExec(dir, ExecSocket, start)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return dir, s
}

func TestRequestedCommandsRunWithTheirStreams(t *testing.T) {
	dir, _ := serveIn(t, startPlain)
	in, out := newFile(t, "in"), newFile(t, "out")
	if _, err := in.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	q := ExecRequest{Command: []string{"/bin/sh", "-c", "cat; echo nowhere >&2; exit 7"}, Stdin: true, Stdout: true}
	r, err := RequestExec(t.Context(), dir, ExecSocket, q, []*os.File{in, out})
	if err != nil {
		t.Fatal(err)
	}
	if r.Pid <= 1 {
		t.Errorf("its process is %d", r.Pid)
	}
	if code, err := r.Wait(t.Context()); err != nil || code != 7 {
		t.Errorf("it ended with %d, %v", code, err)
	}
	if text, err := os.ReadFile(out.Name()); err != nil || string(text) != "hello" {
		t.Errorf("its output is %q, %v", text, err)
	}
}

func TestRequestedCommandsGetSignals(t *testing.T) {
	dir, _ := serveIn(t, startPlain)
	r, err := RequestExec(t.Context(), dir, ExecSocket, ExecRequest{Command: []string{"sleep", "1000"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Resize(24, 80), r.Signal(syscall.SIGTERM)); err != nil { // it has no terminal
		t.Fatal(err)
	}
	if code, err := r.Wait(t.Context()); err != nil || code != 128+int(syscall.SIGTERM) {
		t.Errorf("it ended with %d, %v", code, err)
	}
}

// TestCommandsEndWithTheirRequest is about those that one who acts for the user has asked for: only they have a Spec.
func TestCommandsEndWithTheirRequest(t *testing.T) {
	ended := make(chan int, 1)
	dir, _ := serveIn(t, func(ctx context.Context, q ExecRequest, files []*os.File) (*Process, error) {
		p, err := startPlain(ctx, q, files)
		if err == nil {
			go func() {
				code, _ := p.Wait()
				ended <- code
			}()
		}
		return p, err
	})
	q := ExecRequest{Command: []string{"sleep", "1000"}, Spec: &Spec{}}
	r, err := RequestExec(t.Context(), dir, ExecSocket, q, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.conn.Close()
	if code := <-ended; code != 128+int(syscall.SIGKILL) {
		t.Errorf("it ended with %d", code)
	}
}

// TestRefusedRequestsSayWhy has commands that cannot be started.
func TestRefusedRequestsSayWhy(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		code int
		says string
	}{
		"with a status": {&ExitError{127, "not found"}, 127, "not found"},
		"wrapped":       {fmt.Errorf("starting: %w", &ExitError{125, "no such user"}), 125, "no such user"},
		"any other":     {unix.EMFILE, 126, unix.EMFILE.Error()},
	} {
		dir, _ := serveIn(t, func(context.Context, ExecRequest, []*os.File) (*Process, error) { return nil, test.err })
		var exit *ExitError
		_, err := RequestExec(t.Context(), dir, ExecSocket, ExecRequest{Command: []string{"x"}}, nil)
		if !errors.As(err, &exit) || exit.Code != test.code || exit.Msg != test.says {
			t.Errorf("%s: %v; want %d, %s", name, err, test.code, test.says)
		}
	}
	nobody := t.TempDir()
	if _, err := RequestExec(t.Context(), nobody, ExecSocket, ExecRequest{}, nil); err == nil ||
		!strings.Contains(err.Error(), "takes no commands") {
		t.Errorf("nobody listens: %v", err)
	}
	long := ExecRequest{Command: []string{strings.Repeat("x", maxMessage)}}
	if _, err := RequestExec(t.Context(), nobody, ExecSocket, long, nil); err == nil ||
		!strings.Contains(err.Error(), "are possible") {
		t.Errorf("one that is too long: %v", err)
	}
	if _, err := RequestExec(t.Context(), filepath.Join(nobody, "none"), ExecSocket, ExecRequest{}, nil); err == nil {
		t.Error("there is no such directory")
	}
}

// TestClosedServersAreWaitedFor leaves one connection without a request, and one that is no request.
func TestClosedServersAreWaitedFor(t *testing.T) {
	started := false
	dir, s := serveIn(t, func(context.Context, ExecRequest, []*os.File) (*Process, error) {
		started = true
		return nil, unix.EPERM
	})
	at := &net.UnixAddr{Name: filepath.Join(dir, ExecSocket), Net: "unixpacket"}
	silent, err := net.DialUnix(at.Net, nil, at)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	odd, err := net.DialUnix(at.Net, nil, at)
	if err != nil {
		t.Fatal(err)
	}
	defer odd.Close()
	if _, err := odd.Write([]byte("no request")); err != nil {
		t.Fatal(err)
	}
	if n, err := odd.Read(make([]byte, 64)); n > 0 || err == nil {
		t.Errorf("what is no request was answered: %d bytes, %v", n, err)
	}
	s.Close()
	if n, err := silent.Read(make([]byte, 64)); n > 0 || err == nil {
		t.Errorf("after Close it was answered: %d bytes, %v", n, err)
	}
	if started {
		t.Error("something was started")
	}
	var none *ExecServer
	none.Close()
	if _, err := ServeExec(filepath.Join(dir, "none"), ExecSocket, startPlain); err == nil {
		t.Error("there is no such directory")
	}
}

func TestStreamsAreThoseThatCame(t *testing.T) {
	a, b := newFile(t, "a"), newFile(t, "b")
	for name, test := range map[string]struct {
		q     ExecRequest
		files []*os.File
		want  [3]*os.File
	}{
		"none":            {ExecRequest{}, []*os.File{a}, [3]*os.File{}},
		"in and error":    {ExecRequest{Stdin: true, Stderr: true}, []*os.File{a, b}, [3]*os.File{a, nil, b}},
		"output":          {ExecRequest{Stdout: true}, []*os.File{b}, [3]*os.File{nil, b, nil}},
		"fewer than said": {ExecRequest{Stdin: true, Stdout: true}, []*os.File{a}, [3]*os.File{a, nil, nil}},
	} {
		spec := Spec{Stdin: b, Stdout: b, Stderr: b} // those of the sandbox's command
		test.q.AddStreams(&spec, test.files)
		if got := [3]*os.File{spec.Stdin, spec.Stdout, spec.Stderr}; got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
