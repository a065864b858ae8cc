package publish

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/handover"
	"github.com/usernet/usernet/internal/ports"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/internal/watchdog"
)

// Table has the host ports of a daemon, and the sockets that it was given for ports. Its methods may be called by many
// goroutines at once.
type Table struct {
	keepAlive net.KeepAliveConfig // of connections that are accepted; set before the first port is published

	mu        sync.Mutex // guards what follows
	ports     map[key]*Port
	inherited map[key]int        // descriptors, which stay open
	adopted   map[adoptedKey]int // descriptors of a daemon whose place this one takes
	fdStore   handover.Sink      // stores copies of the ports' sockets; nil: nothing does
}

// key is a host port: its address may be unspecified.
type key struct {
	host  netip.AddrPort
	proto ports.Protocol
	ifc   string // the interface that it is limited to; "": none
}

func keyOf(b Bound) key { return key{b.Host, b.Proto, b.Interface} }

// NewTable makes an empty table.
func NewTable() *Table {
	return &Table{ports: map[key]*Port{}, inherited: map[key]int{}, adopted: map[adoptedKey]int{}}
}

// SetKeepAlive says what keepalive the connections have that are accepted. It is called before the first port is
// published.
func (t *Table) SetKeepAlive(k net.KeepAliveConfig) { t.keepAlive = k }

// Locks are what has to be watched for hanging.
func (t *Table) Locks() []watchdog.Lock {
	return []watchdog.Lock{watchdog.Mutex("host ports", &t.mu, 0)}
}

// Inherit stores a bound socket that the daemon was started with (systemd's socket activation, sd_listen_fds(3)) for
// the published port that asks for its address; the way to have a port that this user may not bind. It owns fd from
// here, also when it fails.
func (t *Table) Inherit(fd int) (at netip.AddrPort, proto ports.Protocol, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return netip.AddrPort{}, "", fmt.Errorf("descriptor %d is not a socket: %w", fd, err)
	}
	at, proto = sockio.LocalAddr(fd), ports.TCP
	if kind == unix.SOCK_DGRAM {
		proto = ports.UDP
	}
	if !at.IsValid() || at.Port() == 0 || kind != unix.SOCK_DGRAM && kind != unix.SOCK_STREAM {
		return at, proto, fmt.Errorf("descriptor %d is not a bound TCP or UDP socket", fd)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return at, proto, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, twice := t.inherited[key{host: at, proto: proto}]; twice {
		return at, proto, fmt.Errorf("two sockets for %s were inherited", at)
	}
	t.inherited[key{host: at, proto: proto}] = fd
	if at.Addr() == netip.IPv6Unspecified() && sockio.IsDual(fd) {
		t.inherited[key{host: netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()), proto: proto}] = fd
	}
	return at, proto, nil
}

// inherits says whether a socket was inherited for a port.
func (t *Table) inherits(host netip.Addr, port uint16, proto ports.Protocol) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.inherited[key{host: netip.AddrPortFrom(host, port), proto: proto}]
	return ok
}

// listen binds a host port, or takes the socket that was passed for it.
func (t *Table) listen(k key, o sockio.ListenOptions) (int, error) {
	if fd, ok := t.takeAdopted(k, o.Dual); ok {
		return fd, nil
	}
	t.mu.Lock()
	fd, ok := t.inherited[k]
	_, taken := t.ports[k]
	t.mu.Unlock()
	switch {
	case ok && taken:
		return -1, unix.EADDRINUSE
	case ok:
		return sockio.DupFD(fd)
	case k.proto == ports.UDP:
		return leaveSome(sockio.ListenUDP(k.host, o))
	}
	return leaveSome(sockio.ListenTCP(k.host, o))
}

// keptDescriptors are those that new ports leave to the rest of the process, above all to the API, by which ports are
// unpublished again. A process that enters a namespace is started with some ten of them.
const keptDescriptors = 32

// leaveSome closes a new socket where its number, the lowest that was free, says that fewer than keptDescriptors are
// left.
func leaveSome(fd int, err error) (int, error) {
	limit := sockio.FileLimit()
	if err != nil || limit == 0 || uint64(fd)+keptDescriptors < limit {
		return fd, err
	}
	_ = unix.Close(fd)
	return -1, unix.EMFILE
}

// port finds a published port.
func (t *Table) port(k key) *Port {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ports[k]
}

func (t *Table) add(p *Port) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range p.Bounds() {
		t.ports[keyOf(b)] = p
	}
}

func (t *Table) remove(p *Port) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range p.Bounds() {
		if k := keyOf(b); t.ports[k] == p {
			delete(t.ports, k)
		}
	}
}

// PublishedEverywhere says whether some container has a port at all of the host's addresses of a family.
func (t *Table) PublishedEverywhere(v6 bool, port uint16, proto ports.Protocol) bool {
	any := netip.IPv4Unspecified()
	if v6 {
		any = netip.IPv6Unspecified()
	}
	return t.port(key{host: netip.AddrPortFrom(any, port), proto: proto}) != nil
}

// Close closes the sockets that were passed and not published. The publishers are closed before.
func (t *Table) Close() error {
	t.CloseAdopted()
	t.mu.Lock()
	defer t.mu.Unlock()
	closed := map[int]bool{} // a socket for both families stands under two keys
	var errs []error
	for _, fd := range t.inherited {
		if !closed[fd] {
			closed[fd] = true
			errs = append(errs, unix.Close(fd))
		}
	}
	clear(t.inherited)
	return errors.Join(errs...)
}
