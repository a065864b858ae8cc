package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/usernet/usernet/autoconf"
	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/policy"
	"github.com/usernet/usernet/stack"
	vswitch "github.com/usernet/usernet/switch"
)

// DefaultMTU is Ethernet's, in bytes (RFC 894). Throughput does not depend on it: frames inside are super-frames.
const DefaultMTU = 1500

// Config says what a network is. The zero value of each field but Gateways works.
type Config struct {
	Name string // for the log and for error texts

	// Gateways are the gateway's addresses, each with the length of its subnet: one of each address family at most.
	Gateways []netip.Prefix
	// Subnets are those of the network; nil means the gateways'. What is in none of them is reached through the
	// gateway.
	Subnets []netip.Prefix
	// Aliases are further addresses in the subnets at which the gateway is found, for NameServers that are not its own.
	Aliases []netip.Addr
	// ProxyAllBut has the gateway answer address resolution for all addresses but these; nil: for its own only.
	ProxyAllBut []netip.Addr
	// Translate returns where on the host an address leads that attachments use; an invalid one: what all else says.
	// Nil: it is not asked.
	Translate func(dst netip.Addr) netip.Addr
	// Refuse returns why nobody reaches an address: forwarder.ErrUnreachable or forwarder.ErrNoAnswer. Nil: it is not
	// asked.
	Refuse func(dst netip.Addr) error
	// MAC is the gateway's; nil means GatewayMAC(Gateways).
	MAC net.HardwareAddr
	// MTU is that of all links, in bytes of layer 3; 0 means DefaultMTU.
	MTU int

	Internal bool // nothing goes out of the network
	Isolated bool // attachments reach the gateway only, and each other as SetLinks says
	// HostLoopback lets all attachments reach services on the host's loopback at the gateway's address.
	HostLoopback bool

	// HideClients has clients of published ports come from the gateway's address: attachments have another way to
	// theirs.
	HideClients bool

	Outbound Outbound
	Limits   forwarder.Limits // of each inside address; the zero value means forwarder.DefaultLimits
	// Shared is what several networks have in common: host ports, limits in total. Its owner closes it, after the
	// networks. Nil: the network has its own.
	Shared *forwarder.Shared

	// Policy is what senders may do that belong to no attachment; nil: anything.
	Policy *policy.Policy

	// Names answers DNS queries at port 53 of the gateway's addresses and of NameServers. Nil: nobody does.
	Names       Names
	NameServers []netip.Addr
	// Client says how the attachment with an id ("": none) is to be answered. It is needed with Names.
	Client func(attachment string) dns.Client

	// Autoconf configures attachments that ask by DHCP or router solicitation, in the gateway's name; nil: nobody does.
	// The router's MAC address in it is not used.
	Autoconf *autoconf.Config

	// LoopbackSocket, where it is not nil, has connections of the host's loopback to published TCP ports lead to the
	// loopback of the container's namespace: it returns an unconnected, non-blocking socket of that namespace, which is
	// reset if it is just closed. It may wait until ctx ends.
	LoopbackSocket func(ctx context.Context, ipv6 bool) (fd int, err error)
	// LoopbackDatagrams does so for published UDP ports. It does not wait; where it has no socket the datagram is lost.
	LoopbackDatagrams func(ipv6 bool) (fd int, err error)
	// NoInboundBypass and NoOutboundBypass carry TCP through the gateway always, whatever sockets attachments offer:
	// connections to published ports, and those that attachments open.
	NoInboundBypass, NoOutboundBypass bool

	Logger *slog.Logger // nil: slog.Default
}

// Outbound says where connections to the outside come from.
type Outbound struct {
	Addr4, Addr6 netip.Addr // the host's source address; zero: the kernel's choice
	Interface    string     // the host's interface; "": the routing table's choice
	Interface6   string     // the same for IPv6
	Loopback     bool       // those to the host's loopback come from Addr4 and Addr6 as well
}

// Names answers queries on sockets until they are closed. *dns.Server implements it.
type Names interface {
	ServePacket(pc net.PacketConn, client func(net.Addr) dns.Client) error
	ServeListener(l net.Listener, client func(net.Addr) dns.Client) error
}

// Network is a running network. Make it with New, end it with Close. Its methods may be called by many goroutines at
// once.
type Network struct {
	cfg        Config
	log        *slog.Logger
	sw         *vswitch.Switch
	gw         *stack.Gateway
	fwd        *forwarder.Forwarder
	shared     *forwarder.Shared
	alone      bool // shared is this network's own
	refusals   refusals
	refusalLog refusalLog
	// neighbours decides which attachments reach each other; nil: all do.
	neighbours atomic.Pointer[policy.Neighbours]
	// policy is cfg.Policy, or what SetPolicy has made of it.
	policy atomic.Pointer[policy.Policy]
	serves sync.WaitGroup // name service at the gateway's addresses, and autoconf

	stopAutoconf context.CancelFunc // nil without it

	capturing captures

	attached struct {
		sync.RWMutex
		byID   map[string]*Attachment
		byAddr map[netip.Addr]*Attachment
		trunks []*Trunk
		closed bool
	}
}

// New makes a network without attachments.
func New(cfg Config) (*Network, error) {
	if cfg.MTU == 0 {
		cfg.MTU = DefaultMTU
	}
	if cfg.MAC == nil {
		cfg.MAC = GatewayMAC(cfg.Gateways)
	}
	if cfg.Subnets == nil {
		for _, g := range cfg.Gateways {
			cfg.Subnets = append(cfg.Subnets, g.Masked())
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	n := &Network{cfg: cfg, log: cfg.Logger.With("network", cfg.Name), shared: cfg.Shared}
	n.policy.Store(cfg.Policy)
	if n.alone = n.shared == nil; n.alone {
		n.shared = forwarder.NewShared(forwarder.Limits{}, cfg.Limits)
	}
	n.attached.byID, n.attached.byAddr = map[string]*Attachment{}, map[netip.Addr]*Attachment{}
	n.sw = vswitch.New(vswitch.Config{Name: cfg.Name, MTU: cfg.MTU, Logger: n.log})
	var err error
	n.gw, err = stack.New(stack.Config{
		MAC:         cfg.MAC,
		MTU:         uint32(cfg.MTU),
		Addresses:   n.gatewayAddrs(),
		ProxyAllBut: cfg.ProxyAllBut,
		Switch:      n.sw,
		Logger:      n.log,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("gateway of network %s: %w", cfg.Name, err), n.sw.Close(), n.closeShared())
	}
	if n.fwd, err = forwarder.New(n.forwarderConfig()); err != nil {
		return nil, errors.Join(
			fmt.Errorf("network %s: %w", cfg.Name, err),
			n.gw.Close(),
			n.sw.Close(),
			n.closeShared(),
		)
	}
	n.gw.SetHandler(outsideHandler{n.fwd})
	if err := errors.Join(n.serveNames(), n.serveAutoconf()); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// gatewayAddrs are all addresses of the gateway, each with the length of its subnet.
func (n *Network) gatewayAddrs() []netip.Prefix {
	list := slices.Clone(n.cfg.Gateways)
	for _, a := range n.cfg.Aliases {
		for _, s := range n.cfg.Subnets {
			if s.Contains(a) {
				list = append(list, netip.PrefixFrom(a, s.Bits()))
			}
		}
	}
	return list
}

func (n *Network) forwarderConfig() forwarder.Config {
	cfg := forwarder.Config{
		Inside:             insideGateway{n.gw},
		Logger:             n.log,
		Internal:           n.cfg.Internal,
		HideClients:        n.cfg.HideClients,
		HostLoopback:       n.mayReachHostLoopback,
		Translate:          n.cfg.Translate,
		Refuse:             n.cfg.Refuse,
		Allow:              n.allow,
		Refused:            n.refused,
		Shared:             n.shared,
		Socket:             n.bypassSocket,
		ToLoopback:         n.cfg.LoopbackSocket != nil,
		LoopbackDatagrams:  n.cfg.LoopbackDatagrams,
		BypassOutcome:      n.bypassOutcome,
		Limits:             n.cfg.Limits,
		OutboundAddr4:      n.cfg.Outbound.Addr4,
		OutboundAddr6:      n.cfg.Outbound.Addr6,
		OutboundInterface4: n.cfg.Outbound.Interface,
		OutboundInterface6: n.cfg.Outbound.Interface6,
		OutboundLoopback:   n.cfg.Outbound.Loopback,
		Owner: func(a netip.Addr) string {
			if a := n.byAddr(a); a != nil {
				return a.cfg.ID
			}
			return ""
		},
	}
	for _, g := range n.cfg.Gateways {
		if g.Addr().Is4() {
			cfg.Gateway4 = g.Addr()
		} else {
			cfg.Gateway6 = g.Addr()
		}
	}
	return cfg
}

// Close detaches everything, ends all flows and published ports, and waits for what the network started. Closing again
// does nothing.
func (n *Network) Close() error {
	n.attached.Lock()
	again := n.attached.closed
	n.attached.closed = true
	var all []*Attachment
	for _, a := range n.attached.byID {
		all = append(all, a)
	}
	trunks := slices.Clone(n.attached.trunks)
	n.attached.Unlock()
	if again {
		return nil
	}
	var errs []error
	for _, a := range all {
		errs = append(errs, a.Detach())
	}
	for _, t := range trunks {
		t.Detach()
	}
	if n.stopAutoconf != nil {
		n.stopAutoconf()
	}
	errs = append(errs, n.fwd.Close(), n.gw.Close(), n.sw.Close())
	n.serves.Wait()
	return errors.Join(append(errs, n.closeShared())...)
}

func (n *Network) closeShared() error {
	if n.alone {
		return n.shared.Close()
	}
	return nil
}

// Name is the network's, from its Config.
func (n *Network) Name() string { return n.cfg.Name }

// Gateways are the gateway's addresses, each with the length of its subnet.
func (n *Network) Gateways() []netip.Prefix { return slices.Clone(n.cfg.Gateways) }

// MTU is that of the network's links, in bytes of layer 3.
func (n *Network) MTU() int { return n.cfg.MTU }

// Isolated says whether attachments reach each other only by links.
func (n *Network) Isolated() bool { return n.cfg.Isolated }

// BeyondGateway says whether a is reached through the gateway: it is outside the network, or the gateway itself, in
// whose name connections to published ports may come.
func (n *Network) BeyondGateway(a netip.Addr) bool {
	if n.gw.Owns(a) {
		return true
	}
	for _, s := range n.cfg.Subnets {
		if s.Contains(a) {
			return false
		}
	}
	return !a.IsLinkLocalUnicast()
}

// Probe sends an ACK of no connection to an attachment's end of one, in the name of the other end. An endpoint that
// still has the connection answers with its own numbers (RFC 5961, 4.2), at which the gateway resets it, since it has
// none.
func (n *Network) Probe(outside, inside netip.AddrPort) error { return n.gw.Probe(outside, inside) }

// GatewayMAC is 02:42 and the IPv4 gateway, as Docker's bridges have; without IPv4, the last four bytes of the IPv6
// gateway behind 02:43, so that the two never meet.
func GatewayMAC(gateways []netip.Prefix) net.HardwareAddr {
	mac := net.HardwareAddr{0x02, 0x43, 0, 0, 0, 0}
	for _, g := range gateways {
		switch {
		case g.Addr().Is4():
			a := g.Addr().As4()
			mac[1] = 0x42
			copy(mac[2:], a[:])
			return mac
		case g.Addr().Is6():
			a := g.Addr().As16()
			copy(mac[2:], a[12:])
		}
	}
	return mac
}
