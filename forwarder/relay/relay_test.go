package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/internal/sockio"
)

// rig is a loop, and connections whose other ends the test holds.
type rig struct {
	t       *testing.T
	loop    *Loop
	reactor *sockio.Reactor
	ended   chan struct{} // has a signal for each session that has ended
}

func newRig(t *testing.T, pipes *Pipes) *rig {
	t.Helper()
	r, err := sockio.NewReactor()
	if err != nil {
		t.Fatal(err)
	}
	if pipes == nil {
		pipes = NewPipes(0, nil)
	}
	t.Cleanup(func() { r.Close(); pipes.Close() })
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	return &rig{t: t, loop: NewLoop(r, pipes, log), reactor: r, ended: make(chan struct{}, 100)}
}

func (g *rig) options() Options { return Options{OnEnd: func() { g.ended <- struct{}{} }} }

// until waits for what a session notes a moment after its peers see it.
func (g *rig) until(noted func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !noted() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// waitEnded waits until a session has ended.
func (g *rig) waitEnded() {
	g.t.Helper()
	select {
	case <-g.ended:
	case <-time.After(30 * time.Second):
		g.t.Fatal("the session has not ended after 30 s")
	}
}

// tcp makes a connection, of which one end is a descriptor with the options that a relayed one has.
func (g *rig) tcp() (fd int, peer *net.TCPConn) {
	g.t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		g.t.Fatal(err)
	}
	if fd, err = sockio.Dup(accepted.(*net.TCPConn)); err != nil {
		g.t.Fatal(err)
	}
	_ = accepted.Close()
	if err := errors.Join(sockio.SetTCP(fd, net.KeepAliveConfig{}), unix.SetNonblock(fd, true)); err != nil {
		g.t.Fatal(err)
	}
	own, err := sockio.Dup(c.(*net.TCPConn))
	if err != nil {
		g.t.Fatal(err)
	}
	f := sockio.NewConn(own)
	defer f.Close()
	p, err := net.FileConn(f.File)
	if err != nil {
		g.t.Fatal(err)
	}
	peer = p.(*net.TCPConn)
	_ = peer.SetDeadline(time.Now().Add(time.Minute))
	g.t.Cleanup(func() { peer.Close() })
	return fd, peer
}

// relay begins a session, and returns the peers of both ends.
func (g *rig) relay() (s *Session, container, host *net.TCPConn) {
	g.t.Helper()
	inside, container := g.tcp()
	outside, host := g.tcp()
	return g.loop.Relay(inside, outside, g.options()), container, host
}

// says has one end send, and the other receive it.
func (g *rig) says(from, to *net.TCPConn, text string) {
	g.t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		g.t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		g.t.Fatalf("of %d bytes arrived %q: %v", len(text), got, err)
	}
}

// isSpliced says what carries a session.
func isSpliced(s *Session) bool {
	_, ok := s.carrier().(*splicing)
	return ok
}

// much is more than the reactor copies.
var much = string(bytes.Repeat([]byte("much "), 1<<20))

// busy has a session move so much that it is spliced.
func (g *rig) busy(s *Session, from, to *net.TCPConn) {
	g.t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(from, much)
		sent <- err
	}()
	if _, err := io.ReadFull(to, make([]byte, len(much))); err != nil {
		g.t.Fatal(err)
	}
	if err := <-sent; err != nil {
		g.t.Fatal(err)
	}
	if !isSpliced(s) {
		g.t.Error("a busy session is not spliced")
	}
}

// TestSessionsOfTwoSockets goes each way through the states of a session, quiet and busy.
func TestSessionsOfTwoSockets(t *testing.T) {
	for _, isBusy := range []bool{false, true} {
		begin := func(t *testing.T) (g *rig, s *Session, container, host *net.TCPConn) {
			g = newRig(t, nil)
			s, container, host = g.relay()
			if isBusy {
				g.busy(s, host, container)
			}
			g.says(container, host, "hello")
			g.says(host, container, "and back")
			return g, s, container, host
		}
		name := map[bool]string{false: "quiet", true: "busy"}[isBusy]
		t.Run(name+", both halves end", func(t *testing.T) {
			g, s, container, host := begin(t)
			if err := container.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if n, err := host.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("the host reads %d, %v", n, err)
			}
			g.until(s.HalfClosed)
			if !s.HalfClosed() || isSpliced(s) != isBusy {
				t.Errorf("after one half: closed %v, spliced %v", s.HalfClosed(), isSpliced(s))
			}
			g.says(host, container, "the other half goes on")
			if _, err := io.WriteString(host, "last words"); err != nil {
				t.Fatal(err)
			}
			_ = host.Close()
			if got, err := io.ReadAll(container); err != nil || string(got) != "last words" {
				t.Errorf("the container reads %q, %v", got, err)
			}
			g.waitEnded()
			in, out := s.Bytes()
			wantIn := len("and back" + "the other half goes on" + "last words")
			if isBusy {
				wantIn += len(much)
			}
			if int(in) != wantIn || int(out) != len("hello") {
				t.Errorf("counted %d and %d bytes, want %d and %d", in, out, wantIn, len("hello"))
			}
		})
		for what, end := range map[string]func(s *Session, container, host *net.TCPConn) *net.TCPConn{
			"aborted": func(s *Session, _, host *net.TCPConn) *net.TCPConn { s.Abort(); s.Abort(); return host },
			"reset by the container": func(_ *Session, container, host *net.TCPConn) *net.TCPConn {
				_ = container.SetLinger(0)
				_ = container.Close()
				return host
			},
			"reset by the host": func(_ *Session, container, host *net.TCPConn) *net.TCPConn {
				_ = host.SetLinger(0)
				_ = host.Close()
				return container
			},
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				g, s, container, host := begin(t)
				peer := end(s, container, host)
				if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("the other end reads %v", err)
				}
				g.waitEnded()
				s.Abort()
				if _, err := s.Detach(t.Context()); err == nil {
					t.Error("a session that has ended can be detached")
				}
			})
		}
		t.Run(name+", detached and resumed", func(t *testing.T) {
			g, s, container, host := begin(t)
			if err := container.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := host.Read(make([]byte, 1)); err != io.EOF {
				t.Fatal(err)
			}
			st, err := s.Detach(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			g.waitEnded()
			if _, err := s.Detach(t.Context()); err == nil {
				t.Error("detached twice")
			}
			again, err := g.loop.Resume(st, g.options())
			if err != nil {
				t.Fatal(err)
			}
			if !again.HalfClosed() {
				t.Error("the half that had ended goes on")
			}
			g.says(host, container, "still there")
			oldIn, oldOut := s.Bytes()
			g.until(func() bool { in, _ := again.Bytes(); return in == oldIn+uint64(len("still there")) })
			in, out := again.Bytes()
			if out != oldOut || in != oldIn+uint64(len("still there")) {
				t.Errorf("counted %d and %d bytes, of which %d and %d before", in, out, oldIn, oldOut)
			}
			_ = host.Close()
			if _, err := container.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the container reads %v", err)
			}
			g.waitEnded()
		})
	}
}

// TestPendingBytesAreResumed: nobody reads, so that bytes are between the two ends when the session is detached.
func TestPendingBytesAreResumed(t *testing.T) {
	g := newRig(t, nil)
	s, container, host := g.relay()
	data := make([]byte, 32<<20)
	for i := range data {
		data[i] = byte(i * 7)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := container.Write(data)
		sent <- errors.Join(err, container.CloseWrite())
	}()
	for deadline := time.Now().Add(time.Minute); ; {
		st, err := s.Detach(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		g.waitEnded()
		pending := st.Directions[0].Bytes
		if s, err = g.loop.Resume(st, g.options()); err != nil {
			t.Fatal(err)
		}
		if pending > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was pending in any handover")
		}
	}
	got, err := io.ReadAll(host)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes arrived, %v", len(got), len(data), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestSessionsWithoutPipes copies where no pipe may be used, and splices once one may.
func TestSessionsWithoutPipes(t *testing.T) {
	g := newRig(t, NewPipes(0, func(int) bool { return false }))
	s, container, host := g.relay()
	g.busy(s, host, container)
	g.busy(s, container, host)
	_ = host.CloseWrite()
	if _, err := container.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the container reads %v", err)
	}
}

// TestDetachGivesUp: with a context that has ended, a busy session is not waited for.
func TestDetachGivesUp(t *testing.T) {
	g := newRig(t, nil)
	s, container, host := g.relay()
	g.busy(s, host, container)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	st, err := s.Detach(ctx)
	if err == nil { // it was faster
		st.Close()
	}
	g.waitEnded()
	if _, err := container.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the container reads %v", err)
	}
}

func TestDamagedStates(t *testing.T) {
	g := newRig(t, nil)
	for what, damage := range map[string]func(st *State){
		"more bytes than the pipe has": func(st *State) { st.Directions[0].Bytes = 10 },
		"more than any pipe has":       func(st *State) { st.Directions[0].Bytes = pipeSize + 1 },
		"fewer than none":              func(st *State) { st.Directions[0].Bytes = -1 },
		"no descriptor": func(st *State) {
			_ = unix.Close(st.Directions[1].FD)
			st.Directions[1].FD = -1
		},
	} {
		a, container := g.tcp()
		b, _ := g.tcp()
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		_, _ = unix.Write(fds[1], []byte("four"))
		_ = unix.Close(fds[1])
		st := State{Directions: [2]Direction{{FD: a, Pending: fds[0], Bytes: 4}, {FD: b, Pending: -1}}}
		open := leak.Files(t, st.FDs()...)
		damage(&st)
		if _, err := g.loop.Resume(st, g.options()); err == nil {
			t.Errorf("%s: it is resumed", what)
		}
		leak.Closed(t, open...)
		if _, err := container.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: the container reads %v", what, err)
		}
	}
}

// TestManySessionsLeaveNothing begins and ends sessions in all ways at once.
func TestManySessionsLeaveNothing(t *testing.T) {
	g := newRig(t, nil)
	before := leak.Descriptors(t)
	goroutines := leak.Goroutines()
	for i := range 60 {
		s, container, host := g.relay()
		if i%2 == 0 {
			g.busy(s, container, host)
		}
		switch i % 3 {
		case 0:
			s.Abort()
		case 1:
			st, err := s.Detach(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			st.Close()
		case 2:
			_ = errors.Join(container.CloseWrite(), host.CloseWrite())
		}
		g.waitEnded()
		_ = errors.Join(container.Close(), host.Close())
	}
	before.NoneLeft(t)
	goroutines.NoneLeft(t)
}
