// Package mesh gives the hosts of a cluster connections and datagrams to each other, over the sealed paths that frames
// take (package fabric): also to a host behind a NAT, or one that is reached through another alone.
//
// The one idea: a network stack in this process whose IP packets are messages of the fabric. The addresses in them mean
// nothing to other hosts: each numbers the others by itself, and writes into a packet that came whose number the host
// has that WireGuard says it is from.
//
//	m, err := mesh.New(mesh.Config{Send: send})
//	go m.Receive(host, message) // for each message of another host that IsMessage
//	conn, err := m.Dial(ctx, host)
//
// Package cluster makes one for package gossip. The package knows no paths: what Send does not take is lost, as with
// any network.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/usernet/usernet/overlay"
)

const (
	// kind begins each message. Other messages that hosts tell each other are JSON.
	kind = 1
	// mtu of the packets: with their kind they fit the narrowest path, one of IPv6's least MTU through a relay.
	mtu       = 1100
	port      = 7946
	queued    = 512       // packets on their way out
	maxHosts  = 1 << 13   // that have a number; twice as many as a fabric has
	maxBuffer = 256 << 10 // of a connection, in bytes
	nic       = 1
)

// self is this host's own number.
var self = tcpip.AddrFrom4([4]byte{10, 0, 0, 1})

// Config is what a Mesh needs.
type Config struct {
	// Send sends a message to a host and says whether it left. It does not wait.
	Send func(to overlay.HostID, message []byte) bool
}

// Mesh is this host's end. Make it with New, end it with Close. Its methods may be called at the same time.
type Mesh struct {
	cfg      Config
	stack    *stack.Stack
	link     *channel.Endpoint
	listener *gonet.TCPListener
	packets  *gonet.UDPConn
	cancel   context.CancelFunc
	ended    sync.WaitGroup
	once     sync.Once // Close

	mu      sync.RWMutex // guards what follows
	numbers map[overlay.HostID]tcpip.Address
	hosts   map[tcpip.Address]overlay.HostID
}

// New makes a mesh.
func New(cfg Config) (*Mesh, error) {
	m := &Mesh{
		cfg:     cfg,
		numbers: map[overlay.HostID]tcpip.Address{},
		hosts:   map[tcpip.Address]overlay.HostID{},
		link:    channel.New(queued, mtu, ""),
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
		}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	// WireGuard's authentication is the better checksum.
	m.link.LinkEPCapabilities = stack.CapabilityTXChecksumOffload | stack.CapabilityRXChecksumOffload
	if err := m.open(); err != nil {
		cancel()
		m.stack.Destroy()
		return nil, fmt.Errorf("mesh: %w", err)
	}
	m.ended.Go(func() { m.send(ctx) })
	return m, nil
}

// open configures the stack, and listens.
func (m *Mesh) open() error {
	sizes := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: maxBuffer / 4, Max: maxBuffer}
	sends := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: maxBuffer / 4, Max: maxBuffer}
	for _, err := range []tcpip.Error{
		m.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sizes),
		m.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sends),
		m.stack.CreateNIC(nic, m.link),
		m.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
			Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: self, PrefixLen: 32},
		}, stack.AddressProperties{}),
	} {
		if err != nil {
			return errors.New(err.String())
		}
	}
	m.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	at := tcpip.FullAddress{NIC: nic, Addr: self, Port: port}
	var err error
	if m.listener, err = gonet.ListenTCP(m.stack, at, ipv4.ProtocolNumber); err != nil {
		return err
	}
	m.packets, err = gonet.DialUDP(m.stack, &at, nil, ipv4.ProtocolNumber)
	return err
}

// Close ends all connections and waits until nothing is sent any more. Closing again does nothing.
func (m *Mesh) Close() (err error) {
	m.once.Do(func() {
		m.cancel()
		m.ended.Wait()
		m.listener.Shutdown()
		err = errors.Join(m.listener.Close(), m.packets.Close())
		m.stack.Destroy()
		m.link.Close()
	})
	return err
}

// send gives the stack's packets to Send, until ctx ends.
func (m *Mesh) send(ctx context.Context) {
	for {
		p := m.link.ReadContext(ctx)
		if p == nil {
			return
		}
		b := p.ToView()
		p.DecRef()
		packet := header.IPv4(b.AsSlice())
		m.mu.RLock()
		to, known := m.hosts[packet.DestinationAddress()]
		m.mu.RUnlock()
		if known {
			m.cfg.Send(to, append([]byte{kind}, packet...))
		}
		b.Release()
	}
}

// IsMessage says whether a message of another host is for Receive.
func IsMessage(message []byte) bool { return len(message) > 0 && message[0] == kind }

// Receive takes a message of a host, which has been authenticated. It does not wait.
func (m *Mesh) Receive(from overlay.HostID, message []byte) {
	if !IsMessage(message) || len(message) > mtu+1 {
		return
	}
	number, ok := m.number(from)
	packet := header.IPv4(slices.Clone(message[1:]))
	if !ok || !packet.IsValid(len(packet)) {
		return
	}
	packet.SetSourceAddress(number)
	packet.SetDestinationAddress(self)
	packet.SetChecksum(0)
	packet.SetChecksum(^packet.CalculateChecksum())
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet)})
	p.RXChecksumValidated = true
	m.link.InjectInbound(ipv4.ProtocolNumber, p)
	p.DecRef()
}

// number is a host's, which is given one where it has none.
func (m *Mesh) number(h overlay.HostID) (tcpip.Address, bool) {
	m.mu.RLock()
	a, known := m.numbers[h]
	m.mu.RUnlock()
	if known {
		return a, true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if a, known = m.numbers[h]; known {
		return a, true
	}
	n := len(m.numbers)
	if n == maxHosts {
		return a, false
	}
	a = tcpip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})
	m.numbers[h], m.hosts[a] = a, h
	return a, true
}

// host is the one with a number.
func (m *Mesh) host(a net.Addr) (overlay.HostID, bool) {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil || !ap.Addr().Is4() {
		return "", false
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	h, ok := m.hosts[tcpip.AddrFrom4(ap.Addr().As4())]
	return h, ok
}

var errTooMany = errors.New("mesh: too many hosts")

// Dial connects to a host.
func (m *Mesh) Dial(ctx context.Context, to overlay.HostID) (net.Conn, error) {
	number, ok := m.number(to)
	if !ok {
		return nil, errTooMany
	}
	c, err := gonet.DialContextTCP(ctx, m.stack, tcpip.FullAddress{NIC: nic, Addr: number, Port: port},
		ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", to.Short(), err)
	}
	return c, nil
}

// Accept waits for a connection of another host. Its error is io.EOF after Close.
func (m *Mesh) Accept() (net.Conn, error) {
	c, err := m.listener.Accept()
	if err != nil {
		return nil, io.EOF // there is no other error
	}
	return c, nil
}

// WriteTo sends a datagram to a host. Large ones are cut and put together again; what is lost is lost.
func (m *Mesh) WriteTo(b []byte, to overlay.HostID) error {
	number, ok := m.number(to)
	if !ok {
		return errTooMany
	}
	_, err := m.packets.WriteTo(b, &net.UDPAddr{IP: number.AsSlice(), Port: port})
	return err
}

// ReadFrom waits for a datagram of another host. Its error is io.EOF after Close.
func (m *Mesh) ReadFrom(b []byte) (int, overlay.HostID, error) {
	for {
		n, from, err := m.packets.ReadFrom(b)
		if err != nil {
			return 0, "", io.EOF
		}
		if h, ok := m.host(from); ok {
			return n, h, nil
		}
	}
}
