package stores

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/hang"
	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/kvtest"
)

// patience is how long a server may take to start, on a machine that has other work.
const patience = 2 * time.Minute

// server is a store's server with its data.
type server struct {
	t       *testing.T // the test that the server is for; its subtests use it one after the other
	name    string
	dir     string // its data is in dir/data
	port    int
	command func() *exec.Cmd
	ready   func(context.Context) error
	running *exec.Cmd
	ended   chan struct{} // closed when running has ended
}

// start starts a server, and waits until it answers.
func (s *server) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.running = s.command()
	s.running.Stdout, s.running.Stderr = log, log
	s.running.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.running.Start(); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	ended := make(chan struct{})
	s.ended = ended
	go func(cmd *exec.Cmd) {
		defer close(ended)
		_ = cmd.Wait()
	}(s.running)
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := s.ready(ctx)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", s.name, s.tail())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not answer: %v\n%s", s.name, err, s.tail())
		}
	}
}

func (s *server) log() string { return filepath.Join(s.dir, "log") }

func (s *server) tail() string {
	text, _ := os.ReadFile(s.log())
	lines := bytes.Split(text, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-30):], []byte("\n")))
}

func (s *server) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := s.running.Process.Signal(sig); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
}

func (s *server) kill(t *testing.T) {
	t.Helper()
	s.signal(t, syscall.SIGKILL)
	<-s.ended
}

// copyDir replaces a directory by a copy of another.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// backup copies the data of a server that does not run meanwhile.
func (s *server) backup(t *testing.T) {
	t.Helper()
	s.kill(t)
	copyDir(t, filepath.Join(s.dir, "data"), filepath.Join(s.dir, "backup"))
	s.start(t)
}

// restore puts the copy in the data's place.
func (s *server) restore(t *testing.T) {
	t.Helper()
	s.kill(t)
	copyDir(t, filepath.Join(s.dir, "backup"), filepath.Join(s.dir, "data"))
	s.start(t)
}

func (s *server) url(scheme string) string { return fmt.Sprintf("%s://127.0.0.1:%d", scheme, s.port) }

// target is what kvtest needs. Each test has a prefix of its own.
func (s *server) target(scheme string, open func(kv.Location) (kv.Store, error), minTTL time.Duration) kvtest.Target {
	return kvtest.Target{
		Open: func(t *testing.T) kv.Store {
			t.Helper()
			return s.open(t, scheme, open)
		},
		Kill: s.kill, Start: s.start,
		Hang:   func(t *testing.T) { hang.Stop(t, s.running.Process.Pid) },
		Resume: func(t *testing.T) { s.signal(t, syscall.SIGCONT) },
		Backup: s.backup, Restore: s.restore,
		MinTTL: minTTL,
	}
}

func (s *server) open(t *testing.T, scheme string, open func(kv.Location) (kv.Store, error)) kv.Store {
	t.Helper()
	sum := sha256.Sum256([]byte(t.Name()))
	l, err := kv.Parse(s.url(scheme)+"/test/"+hex.EncodeToString(sum[:8]), nil)
	if err != nil {
		t.Fatal(err)
	}
	store, err := open(l)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// newServer makes a directory and a port. The server is ended with the test.
func newServer(t *testing.T, name string) *server {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "usernet-store-")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, name: name, dir: dir, port: freePort(t)}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.running != nil {
			_ = s.running.Process.Kill()
			<-s.ended
		}
		if t.Failed() {
			t.Logf("the end of %s's log:\n%s", name, s.tail())
		}
		_ = os.RemoveAll(dir)
	})
	return s
}

// freePort is a port that nobody has. Somebody could take it before the server does; nothing on a test's machine is
// known to.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// output runs a command to its end.
func output(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
