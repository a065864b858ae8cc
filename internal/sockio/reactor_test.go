package sockio

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newReactor(t *testing.T) *Reactor {
	t.Helper()
	r, err := NewReactor()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// pipe is a pipe whose reading end a test watches.
func pipe(t *testing.T) (r, w int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(fds[:]) })
	return fds[0], fds[1]
}

// handlerFunc is a Handler.
type handlerFunc func(events uint32)

func (f handlerFunc) HandleEvents(events uint32) { f(events) }

// say makes the other end of a pipe readable.
func say(t *testing.T, w int) {
	t.Helper()
	if _, err := unix.Write(w, []byte("x")); err != nil {
		t.Fatal(err)
	}
}

// within waits for something that the test wants to happen.
func within[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing happened for 30 s")
	}
	return v
}

func TestReactorCallsUntilRemove(t *testing.T) {
	reactor := newReactor(t)
	r, w := pipe(t)
	called := make(chan uint32, 1000)
	handler := handlerFunc(func(events uint32) {
		_, _ = unix.Read(r, make([]byte, 10))
		called <- events
	})
	if err := reactor.Add(r, handler); err != nil {
		t.Fatal(err)
	}
	if !reactor.Watches(r) || reactor.Watches(w) {
		t.Error("it watches another descriptor than it was told to")
	}
	if err := reactor.Add(r, wakeUp{}); err == nil { // and the first handler stays
		t.Error("a descriptor is watched twice")
	}
	for range 10 {
		say(t, w)
		if events := within(t, called); events&unix.EPOLLIN == 0 {
			t.Errorf("called for events %x", events)
		}
	}
	reactor.Change(r, 0)
	reactor.Barrier()
	for len(called) > 0 {
		<-called
	}
	say(t, w)
	reactor.Barrier()
	if len(called) > 0 {
		t.Error("called for what it does not watch for")
	}
	reactor.Change(r, unix.EPOLLIN)
	within(t, called)
	reactor.Remove(r)
	reactor.Barrier()
	say(t, w)
	select {
	case <-called:
		t.Error("called after Remove and Barrier")
	case <-time.After(10 * time.Millisecond): // what would be a fault could come later and pass unseen
	}
}

// TestReactorWaits: whichever way a reactor waits, each event comes, also for what a handler has left unread, and Close
// ends the wait. The ways change: with one processor it waits in the poller for a while after it was given a
// descriptor.
func TestReactorWaits(t *testing.T) {
	limit := keepers.limit
	t.Cleanup(func() { keepers.limit = limit })
	for _, others := range []int32{0, 1} { // processors besides the reactor's
		keepers.limit = func() int32 { return others }
		for _, last := range []int{0, 1, sharedFor + 1} { // waits after the last descriptor
			reactor := newReactor(t)
			r, w := pipe(t)
			other, _ := pipe(t)
			called := make(chan struct{}, 3)
			if err := reactor.Add(r, handlerFunc(func(uint32) {
				_, _ = unix.Read(r, make([]byte, 1))
				called <- struct{}{}
			})); err != nil {
				t.Fatal(err)
			}
			for i := range 2*sharedFor + last {
				if i < 2*sharedFor && i%3 == 0 {
					if err := reactor.Add(other, wakeUp{}); err != nil {
						t.Fatal(err)
					}
					reactor.Remove(other)
				}
				if _, err := unix.Write(w, []byte("xyz")); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					within(t, called)
				}
			}
			reactor.Close()
		}
	}
}

// TestReactorStops: nothing is dispatched while it is stopped, and all that was waiting is afterwards.
func TestReactorStops(t *testing.T) {
	reactor := newReactor(t)
	r, w := pipe(t)
	running := false
	called := make(chan struct{}, 1)
	if err := reactor.Add(r, handlerFunc(func(uint32) {
		running = true // the race detector sees a dispatch beside WithDispatchStopped
		_, _ = unix.Read(r, make([]byte, 1))
		running = false
		select {
		case called <- struct{}{}:
		default:
		}
	})); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		say(t, w)
		reactor.WithDispatchStopped(func() {
			if running {
				t.Error("a handler runs")
			}
		})
	}
	within(t, called)
}

// failing panics, and is told so.
type failing struct {
	failed chan struct{}
	fd     int
}

func (f *failing) HandleEvents(uint32) {
	_, _ = unix.Read(f.fd, make([]byte, 1))
	panic("as a test")
}

func (f *failing) Fail()                { f.failed <- struct{}{} }
func (f *failing) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func TestReactorOutlivesAPanic(t *testing.T) {
	reactor := newReactor(t)
	r, w := pipe(t)
	f := &failing{make(chan struct{}, 1), r}
	if err := reactor.Add(r, f); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		say(t, w)
		within(t, f.failed)
	}
}

func TestReactorEnds(t *testing.T) {
	reactor := newReactor(t)
	r, _ := pipe(t)
	reactor.Close()
	reactor.Close()
	if err := reactor.Add(r, wakeUp{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a reactor that has ended watches: %v", err)
	}
	reactor.Remove(r)
	reactor.Change(r, 0)
}

func TestWaitConnected(t *testing.T) {
	reactor := newReactor(t)
	listener, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"), ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	at := LocalAddr(listener)
	connect := func(ctx context.Context, to netip.AddrPort) error {
		fd, err := unix.Socket(Family(to.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, Sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return err
		}
		return reactor.WaitConnected(ctx, fd)
	}
	if err := connect(t.Context(), at); err != nil {
		t.Errorf("to one that listens: %v", err)
	}
	_ = unix.Close(listener)
	if err := connect(t.Context(), at); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("to one that does not: %v", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_ = unix.Connect(fd, Sockaddr(at)) // refused, which is reported once
	_, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := reactor.WaitConnected(ctx, fd); !errors.Is(err, context.Canceled) && err == nil {
		t.Errorf("after its context has ended: %v", err)
	}
}

func TestSocketsAreClosedOnce(t *testing.T) {
	reactor := newReactor(t)
	var s Socket
	if err := s.Use(func(int) error { return nil }); !errors.Is(err, unix.EBADF) {
		t.Errorf("the zero value is open: %v", err)
	}
	s.Close(reactor) // which closes nothing: descriptor 0 is the program's own
	if _, err := unix.FcntlInt(0, unix.F_GETFD, 0); err != nil {
		t.Skipf("no standard input: %v", err)
	}
	fd, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.Open(fd)
	if err := reactor.Add(fd, wakeUp{}); err != nil {
		t.Fatal(err)
	}
	if got := s.Release(reactor); got != fd || reactor.Watches(fd) {
		t.Errorf("released %d, want %d, which nobody watches", got, fd)
	}
	if s.Release(reactor) != -1 {
		t.Error("released twice")
	}
	s.Close(reactor)
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		t.Errorf("what was released is closed: %v", err)
	}
	s.Open(fd)
	s.Close(reactor)
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("what was closed is open: %v", err)
	}
}

// TestConnEnds: what waits is interrupted, and the two ways to close are told apart by the peer.
func TestConnEnds(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pair := func() (*Conn, net.Conn) {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fd, err := Dup(c.(*net.TCPConn))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = peer.SetDeadline(time.Now().Add(30 * time.Second))
		t.Cleanup(func() { peer.Close() })
		return NewConn(fd), peer
	}
	c, peer := pair()
	if err := c.WaitWritable(); err != nil {
		t.Error(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	c.Interrupt()
	if err := within(t, read); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an interrupted read: %v", err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after CloseWrite the peer reads %v", err)
	}
	c.Finish()
	c, peer = pair()
	c.Reset()
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("after Reset the peer reads %v", err)
	}
}
