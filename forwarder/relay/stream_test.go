package relay

import (
	"bytes"
	"crypto/rand"
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

// tcpStream is a Stream that changes nothing.
type tcpStream struct{ *net.TCPConn }

var _ Stream = tcpStream{}

func (s tcpStream) FD() (n int) {
	raw, err := s.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { n = int(fd) })
	}
	return n
}
func (s tcpStream) Interrupt() { _ = s.SetDeadline(time.Unix(1, 0)) }
func (s tcpStream) Finish()    { _ = s.SetLinger(-1); _ = s.Close() }
func (s tcpStream) Reset()     { _ = s.SetLinger(0); _ = s.Close() }

// tcpPair is a connection over the host's loopback.
func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), s.Close() })
	for _, x := range []net.Conn{c, s} {
		_ = x.SetDeadline(time.Now().Add(time.Minute))
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// streamed is a session of a stream: the container's program and what is behind the stream.
func streamed(t *testing.T) (container, host *net.TCPConn, s *Session, ended chan struct{}) {
	t.Helper()
	r, err := sockio.NewReactor()
	if err != nil {
		t.Fatal(err)
	}
	pipes := NewPipes(1, nil)
	container, inside := tcpPair(t)
	near, host := tcpPair(t)
	_ = near.SetDeadline(time.Time{})
	fd, err := sockio.Dup(inside)
	if err != nil {
		t.Fatal(err)
	}
	_ = inside.Close()
	ended = make(chan struct{})
	s = NewLoop(r, pipes, slog.Default()).RelayStream(fd, tcpStream{near}, Options{OnEnd: func() { close(ended) }})
	t.Cleanup(func() {
		s.Abort()
		<-ended
		r.Close()
		pipes.Close()
	})
	return container, host, s, ended
}

func TestStreamsCarryBothHalves(t *testing.T) {
	running := leak.Goroutines()
	t.Cleanup(func() { running.NoneLeft(t) })
	container, host, s, ended := streamed(t)
	data := make([]byte, 5<<20)
	_, _ = rand.Read(data)
	for _, way := range [][2]*net.TCPConn{{container, host}, {host, container}} {
		sent := make(chan error, 1)
		go func() {
			_, err := way[0].Write(data)
			sent <- errors.Join(err, way[0].CloseWrite())
		}()
		got, err := io.ReadAll(way[1])
		if err = errors.Join(err, <-sent); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(data), err)
		}
	}
	<-ended
	if in, out := s.Bytes(); in != uint64(len(data)) || out != uint64(len(data)) {
		t.Errorf("counted %d in and %d out", in, out)
	}
}

// TestStreamsPassResetsOn resets either end, with data that nobody takes before it, and without.
func TestStreamsPassResetsOn(t *testing.T) {
	for _, full := range []bool{false, true} {
		for _, fromHost := range []bool{false, true} {
			container, host, _, ended := streamed(t)
			from, to := container, host
			if fromHost {
				from, to = host, container
			}
			if full {
				_ = from.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
				b := make([]byte, 1<<20)
				for {
					if _, err := from.Write(b); err != nil {
						break // nothing more is taken
					}
				}
			}
			_ = from.SetLinger(0)
			_ = from.Close()
			<-ended
			if _, err := io.Copy(io.Discard, to); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("full %v, from the host %v: the other end sees %v", full, fromHost, err)
			}
		}
	}
}

func TestStreamsEndWithAbort(t *testing.T) {
	container, host, s, ended := streamed(t)
	if _, err := s.Detach(t.Context()); !errors.Is(err, errNotSockets) {
		t.Errorf("detached: %v", err)
	}
	s.Abort()
	<-ended
	for _, c := range []*net.TCPConn{container, host} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("an end sees %v", err)
		}
	}
}

// TestStreamsDeliverWhatCameBeforeAReset has an answer that a reset follows, as servers send that close a connection
// with a request that they have not read.
func TestStreamsDeliverWhatCameBeforeAReset(t *testing.T) {
	container, host, _, ended := streamed(t)
	if _, err := container.Write([]byte("request")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(host, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(container, got); err != nil || string(got) != "answer" {
		t.Fatalf("%q, %v", got, err)
	}
	_ = host.SetLinger(0)
	_ = host.Close()
	<-ended
}
