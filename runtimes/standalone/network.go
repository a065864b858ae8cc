package standalone

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/usernet/usernet/autoconf"
	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/forwarder/publish"
	vswitch "github.com/usernet/usernet/switch"
	"github.com/usernet/usernet/switch/tap"
)

// Config says how the network is to be. Log and Gateways are needed.
type Config struct {
	Log *slog.Logger
	MTU int // bytes
	// Gateways are the gateway's addresses, one of each family, with the subnet's length.
	Gateways []netip.Prefix
	// Subnets are those of the network; nil: those of Gateways.
	Subnets []netip.Prefix
	// MAC is the gateway's; nil: made of its addresses.
	MAC net.HardwareAddr
	// ProxyAllBut has the gateway answer address resolution for all addresses but these; nil: for its own only.
	ProxyAllBut []netip.Addr
	// Translate returns where on the host an address leads that the guest uses; an invalid one: what all else says.
	Translate func(netip.Addr) netip.Addr
	// Unreachable are addresses at which the guest is told that there is no way, and Silent those of the gateway's at
	// which it is told nothing; an echo is answered at both.
	Unreachable, Silent []netip.Addr
	// DNS are where names are answered.
	DNS []netip.Addr
	// NameServers are asked for names; nil: those of the host's resolv.conf.
	NameServers []string
	// HostLoopback says that the gateway's addresses lead to the host's loopback.
	HostLoopback bool
	Outbound     engine.Outbound
	// LoopbackSocket and LoopbackDatagrams: see engine.Config.
	LoopbackSocket    func(ctx context.Context, ipv6 bool) (fd int, err error)
	LoopbackDatagrams func(ipv6 bool) (fd int, err error)
	// GuestMAC is the MAC address of the interface in the namespace.
	GuestMAC net.HardwareAddr
	// GuestAddrs are the addresses that it is known to have there: nobody is asked who has them. While the first
	// packets wait for an answer, later ones could overtake them.
	GuestAddrs []netip.Addr
	// Filter says of each frame of the guest whether it may go on; nil: all may. It must not block or change the frame.
	Filter func(*vswitch.Frame) bool
	// Autoconf configures guests that ask, in the name of the gateway; nil: nobody does.
	Autoconf *autoconf.Config
}

// Network is a namespace's network. Its methods may be called by many goroutines at once.
type Network struct {
	net   *engine.Network
	guest *engine.Attachment
	names *dns.Server    // nil where no names are answered
	up    *dns.Upstreams // of names
	gone  chan struct{}  // closed when the TAP is not served any more
}

// guestID is the attachment's id, and what flows and logs call it.
const guestID = "guest"

// Start serves the TAP f, which it owns from here, also when it fails.
func Start(cfg Config, f *os.File) (*Network, error) {
	dev, err := tap.Open(f, true)
	if err != nil {
		return nil, err
	}
	n := &Network{gone: make(chan struct{})}
	if err := n.start(cfg, dev); err != nil {
		return nil, errors.Join(err, n.Close(), dev.Close())
	}
	return n, nil
}

func (n *Network) start(cfg Config, dev *tap.Device) (err error) {
	ec := engine.Config{
		Name:         "standalone",
		Gateways:     cfg.Gateways,
		Subnets:      cfg.Subnets,
		MAC:          cfg.MAC,
		ProxyAllBut:  cfg.ProxyAllBut,
		Translate:    cfg.Translate,
		MTU:          cfg.MTU,
		HostLoopback: cfg.HostLoopback,
		Outbound:     cfg.Outbound,

		LoopbackSocket:    cfg.LoopbackSocket,
		LoopbackDatagrams: cfg.LoopbackDatagrams,
		Autoconf:          cfg.Autoconf,
		Logger:            cfg.Log,
		Aliases:           cfg.Silent,
		Refuse:            cfg.refuse,
	}
	if len(cfg.DNS) > 0 {
		n.startNames(cfg)
		ec.Names, ec.NameServers, ec.Aliases = n.names, cfg.DNS, slices.Concat(cfg.DNS, cfg.Silent)
		ec.Client = func(string) dns.Client {
			return dns.Client{ID: guestID, Forward: true, Upstreams: cfg.NameServers}
		}
	}
	if n.net, err = engine.New(ec); err != nil {
		return err
	}
	link := &watchedLink{Device: dev, gone: sync.OnceFunc(func() { close(n.gone) })}
	n.guest, err = n.net.Attach(engine.AttachConfig{
		ID:        guestID,
		Name:      guestID,
		MAC:       cfg.GuestMAC,
		Addrs:     cfg.GuestAddrs,
		Unguarded: true,
		Filter:    cfg.Filter,
	}, link)
	return err
}

// refuse says why the guest does not reach an address; nil: it may.
func (c *Config) refuse(dst netip.Addr) error {
	switch {
	case slices.Contains(c.Silent, dst):
		return forwarder.ErrNoAnswer
	case slices.Contains(c.Unreachable, dst):
		return forwarder.ErrUnreachable
	}
	return nil
}

// watchedLink tells when its TAP is not served any more.
type watchedLink struct {
	*tap.Device
	gone func()
}

// Serve implements engine.Link.
func (l *watchedLink) Serve(p *vswitch.Port) error {
	defer l.gone()
	return l.Device.Serve(p)
}

// nobody is a directory without names: what is asked for is outside.
type nobody struct{}

func (nobody) LookupName(string, string) ([]netip.Addr, int, bool)                { return nil, 0, false }
func (nobody) LookupAddr(string, netip.Addr) (string, bool)                       { return "", false }
func (nobody) LookupService(string, string, string, string) ([]dns.Service, bool) { return nil, false }

// cacheSize is how many answers are kept.
const cacheSize = 1000

func (n *Network) startNames(cfg Config) {
	n.up = dns.NewUpstreams("/etc/resolv.conf", cfg.Log)
	n.names = dns.NewServer(dns.Config{Directory: nobody{}, Logger: cfg.Log, Upstreams: n.up, CacheSize: cacheSize})
}

// Gone is closed when the TAP is not served any more: its namespace has ended, or Close was called.
func (n *Network) Gone() <-chan struct{} { return n.gone }

// Mirror shows f the guest's frames until stop is called: in is true for those that it sends. f must not block, or
// change or keep the frame.
func (n *Network) Mirror(f func(in bool, frame *vswitch.Frame)) (stop func()) {
	return n.guest.Mirror(f)
}

// Publish forwards a host port to a port of the guest until it is unpublished. proto is tcp or udp.
func (n *Network) Publish(
	ctx context.Context,
	proto string,
	host, guest netip.AddrPort,
) (unpublish func() error, err error) {
	p := engine.Publication{Ports: []publish.Binding{{
		HostIP:   host.Addr(),
		HostPort: host.Port(),
		HostEnd:  host.Port(),
		Port:     guest.Port(),
		End:      guest.Port(),
		Proto:    publish.Protocol(proto),
	}}}
	if guest.Addr().Is4() {
		p.IPv4 = guest.Addr()
	} else {
		p.IPv6 = guest.Addr()
	}
	return n.PublishAll(ctx, p)
}

// PublishAll forwards host ports to the guest until they are unpublished: all of them, or with an error none.
func (n *Network) PublishAll(ctx context.Context, p engine.Publication) (unpublish func() error, err error) {
	bound, err := n.net.Publish(ctx, n.guest, p)
	if refused, ok := errors.AsType[*publish.BindError](err); ok {
		refused.Standalone = true
	}
	if err != nil {
		return nil, err
	}
	return func() error { return n.net.Unpublish(bound) }, nil
}

// Close ends the network and waits for everything that it started.
func (n *Network) Close() error {
	var errs []error
	if n.names != nil {
		errs = append(errs, n.names.Close())
	}
	if n.up != nil {
		errs = append(errs, n.up.Close())
	}
	if n.net != nil {
		errs = append(errs, n.net.Close())
	}
	return errors.Join(errs...)
}
