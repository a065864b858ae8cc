package splice

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A connection needs its two sockets, and two pipes while bytes move (splice(2)). As many descriptors are left for all
// else.
const (
	descriptorsEach  = 6
	descriptorsElse  = 256
	fewestAtOnce     = 64
	mostAtOnce       = 16384
	acceptAgainAfter = 100 * time.Millisecond // where there are no descriptors
)

// Group is a bounded set of connections and ports that end together. Make it with NewGroup, end it with Close. Its
// methods may be called by many goroutines at once.
type Group struct {
	ctx    context.Context // ends all of them
	cancel context.CancelFunc
	slots  chan struct{} // one for each connection
	// streams are AcceptTCP's goroutines: those that accept, until stop, and those of connections. wg has all others.
	streams, wg sync.WaitGroup
}

// NewGroup returns an empty group.
func NewGroup() *Group {
	g := &Group{slots: make(chan struct{}, atOnce())}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// atOnce is how many connections there may be.
func atOnce() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return mostAtOnce
	}
	return max(fewestAtOnce, min(mostAtOnce, (int(limit.Cur)-descriptorsElse)/descriptorsEach))
}

// Close ends all connections and waits for them. Sockets that they come by are stopped before.
func (g *Group) Close() {
	g.cancel()
	g.streams.Wait()
	g.wg.Wait()
}

// Drain is Close for a group whose services have just ended: what these sent last, and the end of their streams, may
// still be on its way. So connections have atMost to end by themselves before they are reset.
func (g *Group) Drain(atMost time.Duration) {
	ended := make(chan struct{})
	go func() {
		g.streams.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(atMost):
	}
	g.Close()
	<-ended
}

// DialTCP connects to where a client's connection is to lead. ctx ends with the group.
type DialTCP func(ctx context.Context, client netip.AddrPort) (*net.TCPConn, error)

// AcceptTCP carries the connections that come to l, until stop is called, which closes l and ends none. Where dial
// fails, and beyond the group's limit, a connection is reset.
func (g *Group) AcceptTCP(l net.Listener, dial DialTCP) (stop func() error) {
	g.streams.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				select {
				case <-g.ctx.Done():
					return
				case <-time.After(acceptAgainAfter):
				}
				continue
			}
			select {
			case g.slots <- struct{}{}:
				g.streams.Go(func() {
					defer func() { <-g.slots }()
					g.carry(c.(*net.TCPConn), dial)
				})
			default:
				reset(c.(*net.TCPConn))
			}
		}
	})
	return l.Close
}

// carry connects a client's connection on, and returns when both directions have ended.
func (g *Group) carry(a *net.TCPConn, dial DialTCP) {
	client := a.RemoteAddr().(*net.TCPAddr).AddrPort()
	b, err := dial(g.ctx, netip.AddrPortFrom(client.Addr().Unmap(), client.Port()))
	if err != nil {
		reset(a)
		return
	}
	stop := context.AfterFunc(g.ctx, func() {
		reset(a)
		reset(b)
	})
	defer stop()
	var back sync.WaitGroup
	back.Go(func() { move(b, a) })
	move(a, b)
	back.Wait()
	for _, c := range []*net.TCPConn{a, b} {
		_ = c.SetLinger(-1) // sockets of the bypass are made to be reset by close(2)
		_ = c.Close()
	}
}

// move carries one direction. The end of the stream is passed on; a reset resets both.
func move(from, to *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		reset(from)
		reset(to)
	}
}

// reset closes a connection so that its peer notices (socket(7), SO_LINGER).
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
