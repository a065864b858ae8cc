package gossip

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/gossip/streams"
)

// Paths are other ways to hosts than this package's sockets: those that frames take, which lead through NATs. Package
// cluster has them.
type Paths interface {
	// Detour says whether a host is reached, and not at an address that it names: it is behind a NAT, or passed on.
	Detour(overlay.HostID) bool
	// Reached are the hosts that are reached, by the addresses that they name.
	Reached() map[overlay.HostID]netip.Addr
	// WriteTo sends a datagram, and ReadFrom waits for one.
	WriteTo(b []byte, to overlay.HostID) error
	ReadFrom(b []byte) (int, overlay.HostID, error)
	// Dial makes a connection, and Accept waits for one.
	Dial(ctx context.Context, to overlay.HostID) (net.Conn, error)
	Accept() (net.Conn, error)
	// Close has ReadFrom and Accept return.
	Close() error
}

// transport is memberlist's sockets, with bounds, and paths beside them.
type transport struct {
	*streams.Transport
	paths   Paths // nil: there are none
	packets chan *memberlist.Packet
	stop    chan struct{} // closed by Shutdown: nobody takes datagrams any more
	drained chan struct{} // closed when nothing comes from the sockets any more
	ended   sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// newTransport listens on a port of an address, 0: any.
func newTransport(bind netip.AddrPort, paths Paths, logger *log.Logger) (*transport, error) {
	sockets, err := streams.New(&memberlist.NetTransportConfig{
		BindAddrs: []string{bind.Addr().String()}, BindPort: int(bind.Port()), Logger: logger,
	})
	if err != nil {
		if strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) { // memberlist has but the text
			err = fmt.Errorf("%w (%w)", err, syscall.EADDRINUSE)
		}
		return nil, err
	}
	t := &transport{
		Transport: sockets, paths: paths, packets: make(chan *memberlist.Packet),
		stop: make(chan struct{}), drained: make(chan struct{}),
	}
	t.ended.Go(t.passOn)
	if paths != nil {
		t.ended.Go(t.readPackets)
		t.ended.Go(t.acceptStreams)
	}
	return t, nil
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// passOn passes on what comes by the sockets.
func (t *transport) passOn() {
	for {
		select {
		case <-t.drained:
			return
		case p := <-t.Transport.PacketCh():
			t.came(p)
		}
	}
}

func (t *transport) came(p *memberlist.Packet) {
	select {
	case <-t.stop:
	case t.packets <- p:
	}
}

// readPackets takes the datagrams that come by paths.
func (t *transport) readPackets() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := t.paths.ReadFrom(buf)
		if err != nil {
			return
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: pathAddr(from), Timestamp: time.Now()}
		t.came(p)
	}
}

// pathAddr is a host's, in log lines.
type pathAddr overlay.HostID

func (pathAddr) Network() string  { return "path" }
func (a pathAddr) String() string { return overlay.HostID(a).Short() }

// acceptStreams takes the connections that come by paths. Strangers have none, and take no share of theirs.
func (t *transport) acceptStreams() {
	bounds := streams.NewBounds()
	for {
		c, err := t.paths.Accept()
		if err != nil {
			return
		}
		t.Pass(c, bounds)
	}
}

// by is the host that an address is reached at by a path. The name of one that is to be joined so is the host's id
// alone.
func (t *transport) by(a memberlist.Address) (overlay.HostID, bool) {
	if t.paths == nil {
		return "", false
	}
	if host, err := overlay.ParseHostID(a.Name); err == nil {
		return host, true
	}
	host, _, ok := parseMember(a.Name)
	return host, ok && t.paths.Detour(host)
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if host, is := t.by(a); is {
		return time.Now(), t.paths.WriteTo(b, host)
	}
	return t.Transport.WriteToAddress(b, a)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if host, is := t.by(a); is {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		return t.paths.Dial(ctx, host)
	}
	return t.Transport.DialAddressTimeout(a, timeout)
}

// Shutdown implements memberlist.Transport.
func (t *transport) Shutdown() error {
	close(t.stop)
	err := t.Transport.Shutdown() // waits for its readers, and they for who takes what they have read
	close(t.drained)
	if t.paths != nil {
		_ = t.paths.Close() // it has no error that anybody could do something about
	}
	t.ended.Wait()
	return err
}

// maxKnown is how many hosts that are known of old are joined at a time.
const maxKnown = 3

// known are hosts to join beside the seeds: those that are reached by paths and are no members. So a host comes back
// that knows the others by its replica, when no seed is there any more.
func (b *Backend) known() []string {
	if b.config.Paths == nil {
		return nil
	}
	var list []string
	b.mu.Lock()
	defer b.mu.Unlock()
	for host, addr := range b.config.Paths.Reached() {
		if host != b.config.Host && len(b.mu.alive[host]) == 0 {
			list = append(list, fmt.Sprintf("%s/%s", host, net.JoinHostPort(addr.String(), strconv.Itoa(DefaultPort))))
		}
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(len(list), maxKnown)]
}
