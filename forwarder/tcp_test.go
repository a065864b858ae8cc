package forwarder

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/stack"
)

// end is one end of a connection, of whichever kind.
type end interface {
	io.ReadWriteCloser
	CloseWrite() error
	SetDeadline(time.Time) error
}

// send writes n random bytes in pieces of random sizes, and returns their digest.
func write(c end, r *rand.Rand, n int) ([32]byte, error) {
	sum := sha256.New()
	for n > 0 {
		b := make([]byte, min(n, 1+r.IntN(200000)))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		sum.Write(b)
		if _, err := c.Write(b); err != nil {
			return [32]byte{}, err
		}
		n -= len(b)
	}
	return [32]byte(sum.Sum(nil)), nil
}

// read reads to the end in pieces of random sizes, now and then slowly.
func read(c end, r *rand.Rand) ([32]byte, int, error) {
	sum, total := sha256.New(), 0
	b := make([]byte, 1+r.IntN(100000))
	for {
		n, err := c.Read(b)
		sum.Write(b[:n])
		total += n
		if errors.Is(err, io.EOF) {
			return [32]byte(sum.Sum(nil)), total, nil
		}
		if err != nil {
			return [32]byte{}, total, err
		}
	}
}

// exchange sends both ways at once, ends each direction by itself, and compares.
func exchange(t *testing.T, a, b end, seed uint64) {
	t.Helper()
	sizes := rand.New(rand.NewPCG(seed, 1))
	size := func() int { return [...]int{0, 1, sizes.IntN(3000), sizes.IntN(3000000)}[sizes.IntN(4)] }
	deadline := time.Now().Add(time.Minute)
	_ = a.SetDeadline(deadline)
	_ = b.SetDeadline(deadline)
	var wg sync.WaitGroup
	direction := func(from, to end, n int, seed uint64) (compare func()) {
		var sent, got [32]byte
		wg.Go(func() {
			var err error
			if sent, err = write(from, rand.New(rand.NewPCG(seed, 2)), n); err == nil {
				err = from.CloseWrite()
			}
			if err != nil {
				t.Errorf("writing %d bytes: %v", n, err)
			}
		})
		wg.Go(func() {
			var total int
			var err error
			if got, total, err = read(to, rand.New(rand.NewPCG(seed, 3))); err != nil || total != n {
				t.Errorf("of %d bytes arrived %d: %v", n, total, err)
			}
		})
		return func() {
			t.Helper()
			if got != sent {
				t.Errorf("%d bytes arrived changed", n)
			}
		}
	}
	first := direction(a, b, size(), seed)
	second := direction(b, a, size(), seed+1000)
	wg.Wait()
	first()
	second()
	a.Close()
	b.Close()
}

// pairs makes the two ends of a connection in each way that there is through a forwarder.
var pairs = []struct {
	name string
	make func(t testing.TB, w *world) (container, host end)
}{
	{"outbound", func(t testing.TB, w *world) (end, end) {
		accepted := make(chan *net.TCPConn, 1)
		port := listen(t, func(c *net.TCPConn) { accepted <- c })
		return w.dial(t, port), <-accepted
	}},
	{"published", func(t testing.TB, w *world) (end, end) {
		l, err := w.container.ListenTCP(netip.AddrPortFrom(containerAddr, 80))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		host, err := net.Dial("tcp", w.publish(t, 80, "tcp").Host.String())
		if err != nil {
			t.Fatal(err)
		}
		inside, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return inside.(end), host.(*net.TCPConn)
	}},
	{"direct", func(t testing.TB, w *world) (end, end) {
		accepted := make(chan *net.TCPConn, 1)
		port := listen(t, func(c *net.TCPConn) { accepted <- c })
		w.direct.Store(int32(port))
		host, err := net.Dial("tcp", w.publish(t, 80, "tcp").Host.String())
		if err != nil {
			t.Fatal(err)
		}
		return <-accepted, host.(*net.TCPConn)
	}},
}

func TestStreamsArriveWhole(t *testing.T) {
	for _, pair := range pairs {
		for seed := range uint64(6) {
			t.Run(fmt.Sprint(pair.name, " ", seed), func(t *testing.T) {
				w := newWorld(t, nil)
				container, host := pair.make(t, w)
				exchange(t, container, host, seed)
				eventually(t, func() error {
					if list := w.Flows(); len(list) > 0 {
						return fmt.Errorf("flows are left: %+v", list)
					}
					return nil
				})
			})
		}
	}
}

func TestResetsStayResets(t *testing.T) {
	for _, pair := range pairs {
		t.Run(pair.name+" from the host", func(t *testing.T) {
			container, host := pair.make(t, newWorld(t, nil))
			_ = container.SetDeadline(time.Now().Add(30 * time.Second))
			host.(*net.TCPConn).SetLinger(0)
			host.Close()
			if n, err := container.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || !strings.Contains(
				err.Error(), "reset") {
				t.Errorf("the container reads %d, %v", n, err)
			}
		})
		t.Run(pair.name+" from the container", func(t *testing.T) {
			container, host := pair.make(t, newWorld(t, nil))
			abort(t, container, host)
			_ = host.SetDeadline(time.Now().Add(30 * time.Second))
			if _, err := host.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the host reads %v", err)
			}
		})
	}
}

// abort closes the container's end of a connection with a reset.
func abort(t *testing.T, container, host end) {
	t.Helper()
	switch c := container.(type) {
	case *net.TCPConn:
		_ = c.SetLinger(0)
	case *stack.Conn:
		c.Abort()
	default: // of netstack, which resets a connection that is closed with bytes unread (RFC 1122, 4.2.2.13)
		_ = container.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := host.Write([]byte("xy")); err != nil {
			t.Fatal(err)
		}
		if _, err := container.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	container.Close()
}

// TestUrgentDataIsPartOfTheStream: splice(2) stops at it, for ever, and then takes what stands behind for the end.
func TestUrgentDataIsPartOfTheStream(t *testing.T) {
	for _, before := range []int{0, 3000000} { // as much as the reactor carries, and as goroutines do
		t.Run(fmt.Sprint("after ", before), func(t *testing.T) {
			container, host := pairs[2].make(t, newWorld(t, nil))
			defer container.Close()
			defer host.Close()
			for _, c := range []end{container, host} {
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			}
			read := make(chan error, 1)
			go func() {
				_, err := io.ReadFull(container, make([]byte, before))
				read <- err
			}()
			if _, err := host.Write(make([]byte, before)); err != nil {
				t.Fatal(err)
			}
			if err := <-read; err != nil {
				t.Fatal(err)
			}
			raw, err := host.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			for _, piece := range []struct {
				text  string
				flags int
			}{{"before ", 0}, {"!", unix.MSG_OOB}, {" behind", 0}} {
				var serr error
				if err := raw.Control(func(fd uintptr) {
					serr = unix.Sendto(int(fd), []byte(piece.text), piece.flags,
						nil)
				}); err != nil || serr != nil {
					t.Fatal(err, serr)
				}
			}
			if err := host.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(container); err != nil || string(got) != "before ! behind" {
				t.Errorf("%q arrived, %v", got, err)
			}
		})
	}
}

func TestSlowReaderHoldsTheSenderBack(t *testing.T) {
	for _, pair := range pairs {
		t.Run(pair.name, func(t *testing.T) {
			container, host := pair.make(t, newWorld(t, nil))
			defer container.Close()
			defer host.Close()
			// Nobody reads: what the sender can write is what buffers hold. It has been held back when a second passes
			// in which not a byte of a write was accepted.
			sent, b := 0, make([]byte, 64<<10)
			for {
				_ = container.SetDeadline(time.Now().Add(time.Second))
				n, err := container.Write(b)
				if sent += n; sent > 64<<20 {
					t.Fatalf("%d MiB went to a reader that reads nothing", sent>>20)
				}
				if err != nil && !isTimeout(err) {
					t.Fatalf("after %d bytes: %v", sent, err)
				}
				if err != nil && n == 0 {
					break
				}
			}
			if sent == 0 {
				t.Error("not a byte was accepted")
			}
		})
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// TestConnectionsLeaveNothing is a soak: thousands of connections, a hundred at a time, of which a third ends before a
// byte was sent, and a third with a reset.
func TestConnectionsLeaveNothing(t *testing.T) {
	count := 10000
	if raceEnabled {
		count = 2500
	}
	w := newWorld(t, noIdlePipes(t))
	port := listen(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c)
		c.Close()
	})
	published := w.publish(t, 80, "tcp").Host.String()
	for _, way := range []struct {
		name string
		dial func(i int) (end, error)
	}{
		{"outbound", func(i int) (end, error) {
			// A port of its own for each: a kernel would not reuse one at once either.
			return w.container.DialTCP(t.Context(), netip.AddrPortFrom(containerAddr, uint16(10000+i)),
				netip.AddrPortFrom(gatewayAddr, port))
		}},
		{"direct", func(int) (end, error) {
			w.direct.Store(int32(port)) // the published port leads there as well
			c, err := net.Dial("tcp", published)
			if err != nil {
				return nil, err
			}
			return c.(*net.TCPConn), nil
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			round := func(i int) error {
				c, err := way.dial(i)
				if err != nil {
					return err
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				if i%3 == 0 {
					return nil // it changes its mind
				}
				if _, err := c.Write([]byte("hello")); err != nil {
					return err
				}
				if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
					return err
				}
				if i%3 == 1 {
					abort(t, c, nil)
				}
				return nil
			}
			if err := round(20000); err != nil { // whatever is made once
				t.Fatal(err)
			}
			before := measure(t)
			var wg sync.WaitGroup
			var next atomic.Int64
			for range 100 {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(count); i = next.Add(1) {
						if err := round(int(i)); err != nil {
							t.Errorf("connection %d: %v", i, err)
							return
						}
					}
				})
			}
			wg.Wait()
			eventually(t, func() error {
				if n := len(w.Flows()); n > 0 {
					return fmt.Errorf("%d flows are left", n)
				}
				return nil
			})
			before.back(t)
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.use) > 0 {
				t.Errorf("uses are still counted: %v", w.use)
			}
		})
	}
}

// TestQuietFlowsNeedNoGoroutine: between two sockets of the kernel, the reactor passes small pieces on, whatever their
// number.
func TestQuietFlowsNeedNoGoroutine(t *testing.T) {
	w := newWorld(t, nil)
	accepted := make(chan *net.TCPConn, 1)
	w.direct.Store(int32(listen(t, func(c *net.TCPConn) { accepted <- c })))
	at := w.publish(t, 80, "tcp").Host.String()
	before := leak.Goroutines()
	for range 100 {
		host, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		container := <-accepted
		defer container.Close()
		for _, way := range [][2]net.Conn{{host, container}, {container, host}, {host, container}} {
			if _, err := way[0].Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(way[1], make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(w.Flows()); n != 100 {
		t.Errorf("%d flows, want 100", n)
	}
	before.NoneLeft(t) // those that accepted end
}

// TestPortsAreUsedAgain: the other side closes first, and the container connects from the same port at once.
func TestPortsAreUsedAgain(t *testing.T) {
	w := newWorld(t, nil)
	port := listen(t, func(c *net.TCPConn) { c.Close() })
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		var c *stack.Conn
		// The last one's acknowledgement of the end may be on its way. A SYN that comes in the moment in which the end
		// of the old connection is closed is reset by netstack (tryDeliverSegmentFromClosedEndpoint).
		eventually(t, func() (err error) {
			c, err = w.container.DialTCP(ctx, netip.AddrPortFrom(containerAddr, 4567),
				netip.AddrPortFrom(gatewayAddr, port))
			if err != nil && !errors.Is(err, unix.EADDRINUSE) && !strings.Contains(err.Error(), "refused") {
				t.Fatalf("connection %d: %v", i, err)
			}
			return err
		})
		cancel()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("connection %d: %v", i, err)
		}
		c.Close()
	}
}

func TestHostsSocketsHaveKeepAlive(t *testing.T) {
	w := newWorld(t, nil)
	port := listen(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	w.dial(t, port)
	var host int
	eventually(t, func() (err error) {
		list := w.Flows()
		if len(list) == 0 {
			return errors.New("there is no flow yet")
		}
		host, err = socketAt(list[0].HostSide)
		return err
	})
	for option, want := range map[int]int{unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 5, unix.TCP_KEEPCNT: 3} {
		if got, err := unix.GetsockoptInt(host, unix.IPPROTO_TCP, option); err != nil || got != want {
			t.Errorf("the host's socket has %d for option %d, want %d (%v)", got, option, want, err)
		}
	}
}

// socketAt finds this process's connected socket with a local address.
func socketAt(at netip.AddrPort) (fd int, err error) {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1, err
	}
	for _, e := range list {
		if fd, err := strconv.Atoi(e.Name()); err == nil && sockio.LocalAddr(fd) == at {
			if _, err := unix.Getpeername(fd); err == nil {
				return fd, nil
			}
		}
	}
	return -1, fmt.Errorf("no socket is at %s", at)
}
