package relay_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/relay"
	"github.com/usernet/usernet/forwarder/relay/relaytest"
	"github.com/usernet/usernet/internal/sockio"
)

var _ relay.Conn = (*relaytest.Conn)(nil)

// buffers counts what is moved.
type buffers struct{ moved atomic.Uint64 }

func (b *buffers) Moved(n uint64) { b.moved.Store(n) }
func (b *buffers) Chunk() int     { return 4096 }

// eventually polls until check says nothing is wrong.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// copied begins a session between a container in memory and a TCP connection of which the test has the other end.
func copied(t *testing.T, room int) (s *relay.Session, c *relaytest.Conn, host *net.TCPConn, b *buffers,
	ended chan struct{}) {
	t.Helper()
	reactor, err := sockio.NewReactor()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reactor.Close)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	host = dialled.(*net.TCPConn)
	_ = host.SetDeadline(time.Now().Add(time.Minute))
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := sockio.Dup(accepted.(*net.TCPConn))
	_ = accepted.Close()
	if err = errors.Join(err, sockio.SetTCP(fd, net.KeepAliveConfig{}), unix.SetNonblock(fd, true)); err != nil {
		t.Fatal(err)
	}
	c, b, ended = relaytest.NewConn(room), new(buffers), make(chan struct{})
	loop := relay.NewLoop(reactor, relay.NewPipes(0, nil), slog.New(slog.NewTextHandler(io.Discard, nil)))
	o := relay.ConnOptions{Options: relay.Options{OnEnd: func() { close(ended) }}, Buffers: b}
	s = loop.RelayConn(c, fd, o)
	t.Cleanup(func() {
		s.Abort()
		<-ended
		_ = host.Close()
	})
	return s, c, host, b, ended
}

// takes waits until the container has received a text, and nothing else.
func takes(t *testing.T, c *relaytest.Conn, want string) {
	t.Helper()
	var got strings.Builder
	eventually(t, func() error {
		b, _ := c.Take()
		got.WriteString(b)
		if got.Len() < len(want) {
			return fmt.Errorf("%d of %d bytes arrived", got.Len(), len(want))
		}
		return nil
	})
	if got.String() != want {
		t.Errorf("%d other bytes arrived", got.Len())
	}
}

func TestBothHalvesAreCopied(t *testing.T) {
	s, c, host, b, ended := copied(t, 1000)
	text := strings.Repeat("0123456789", 100000)
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(host, text)
		sent <- errors.Join(err, host.CloseWrite())
	}()
	takes(t, c, text) // through a buffer that is much smaller
	if err := <-sent; err != nil {
		t.Error(err)
	}
	eventually(t, func() error {
		if _, fin := c.Take(); !fin || !s.HalfClosed() {
			return errors.New("the host's end has not arrived")
		}
		return nil
	})
	c.Put(text, true) // the other half goes on
	if got, err := io.ReadAll(host); err != nil || string(got) != text {
		t.Errorf("%d bytes arrived at the host, %v", len(got), err)
	}
	<-ended
	in, out := s.Bytes()
	if in != uint64(len(text)) || out != uint64(len(text)) || b.moved.Load() != in+out || c.Closed() != 1 {
		t.Errorf("%d and %d bytes were counted, the buffers know of %d; closed %d times", in, out, b.moved.Load(), c.Closed())
	}
	if _, err := s.Detach(t.Context()); err == nil {
		t.Error("netstack's end can be detached")
	}
}

// TestResetsArePassedOn, whether data waits at the end that does not read, or not.
func TestResetsArePassedOn(t *testing.T) {
	for _, waits := range []bool{false, true} {
		for what, end := range map[string]func(s *relay.Session, c *relaytest.Conn){
			"the container's": func(_ *relay.Session, c *relaytest.Conn) { c.Fail(unix.ECONNRESET) },
			"an abort":        func(s *relay.Session, _ *relaytest.Conn) { s.Abort(); s.Abort() },
		} {
			s, c, host, _, ended := copied(t, 1000)
			if waits {
				c.Put(strings.Repeat("x", 64<<20), false)
				eventually(t, func() error {
					if _, out := s.Bytes(); out == 0 {
						return errors.New("nothing has moved")
					}
					return nil
				})
			}
			end(s, c)
			<-ended
			if _, err := io.Copy(io.Discard, host); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("%s, with data that waits %v: the host reads %v", what, waits, err)
			}
			if c.Closed() != 1 {
				t.Errorf("%s: the container's end was closed %d times", what, c.Closed())
			}
		}
		s, c, host, _, ended := copied(t, 1000)
		if waits { // the container does not read
			if _, err := host.Write(make([]byte, 100000)); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error {
				if in, _ := s.Bytes(); in < 1000 {
					return errors.New("nothing has moved")
				}
				return nil
			})
		}
		_ = host.SetLinger(0)
		_ = host.Close()
		<-ended
		if _, err := c.TryWrite([]byte("x")); !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("the host's reset, with data that waits %v: the container's end says %v", waits, err)
		}
	}
}

// panicking is a Conn that panics when it is read.
type panicking struct{ *relaytest.Conn }

func (panicking) TryRead(io.Writer) error { panic("as a test") }

func TestAPanicEndsItsSession(t *testing.T) {
	_, c, host, _, ended := copied(t, 1000)
	reactor, err := sockio.NewReactor()
	if err != nil {
		t.Fatal(err)
	}
	defer reactor.Close()
	loop := relay.NewLoop(reactor, relay.NewPipes(0, nil), slog.New(slog.NewTextHandler(io.Discard, nil)))
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	gone := make(chan struct{})
	o := relay.ConnOptions{Options: relay.Options{OnEnd: func() { close(gone) }}, Buffers: new(buffers)}
	loop.RelayConn(panicking{relaytest.NewConn(10)}, fds[0], o)
	<-gone
	c.Put("others go on", true)
	if got, err := io.ReadAll(host); err != nil || string(got) != "others go on" {
		t.Errorf("%q, %v", got, err)
	}
	_ = host.Close()
	<-ended
}
