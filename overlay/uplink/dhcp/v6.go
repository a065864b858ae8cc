package dhcp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"

	vswitch "github.com/usernet/usernet/switch"
)

// v6 is DHCPv6, RFC 8415, for one address (IA_NA). The client is known by its MAC address (DUID-LL), which the
// container keeps over restarts, and so by the same DUID and IAID.
type v6 struct {
	exchange
	cfg Config
}

func newV6(cfg Config, closed <-chan struct{}) *v6 {
	return &v6{exchange: newExchange(closed), cfg: cfg}
}

// All messages go to all servers and relays (RFC 8415 section 7.1). None goes to a server's own address: that takes the
// server's permission, and the newest edition has done away with it.
var (
	allServers    = netip.MustParseAddr("ff02::1:2")
	allServersMAC = net.HardwareAddr{0x33, 0x33, 0, 1, 0, 2} // RFC 2464 section 7
)

// requestTries is how often a server is asked that has made an offer (REQ_MAX_RC is 10: a container's start waits).
const requestTries = 4

func (c *v6) discover(ctx context.Context) (Lease, error) { return c.solicit(ctx, c.cfg.Want) }

// solicit returns what a server offers. The first offer is taken, whatever preference other servers may have: those
// would have to be waited for (RFC 8415 section 18.2.1), and with them the container's start.
func (c *v6) solicit(ctx context.Context, want netip.Addr) (Lease, error) {
	var why error
	goOn := func(err error) bool {
		why = err // other servers may have addresses
		return false
	}
	l, err := c.exchange6(ctx, dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeAdvertise, want, nil, 0, goOn)
	if err != nil && why != nil {
		return l, fmt.Errorf("%w: %w", err, why)
	}
	return l, err
}

func (c *v6) acquire(ctx context.Context) (Lease, error) {
	want := c.cfg.Want
	for {
		offer, err := c.solicit(ctx, want)
		if err != nil {
			return Lease{}, err
		}
		l, err := c.exchange6(ctx, dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeReply, offer.Addr.Addr(), offer.duid,
			requestTries, refusals)
		if err == nil || ctx.Err() != nil {
			return l, err
		}
		// NotOnLink, NoAddrsAvail, or the server is gone: all are asked anew, for any address (RFC 8415, 18.2.10.1).
		want = netip.Addr{}
		if !pause(ctx, firstWait) {
			return l, err
		}
	}
}

// resume is a Rebind: unlike a Confirm it says for how long the address may be used on (RFC 8415 section 18.2.5).
func (c *v6) resume(ctx context.Context, a netip.Addr) (Lease, error) { return c.rebind(ctx, a, 4) }

func (c *v6) rebind(ctx context.Context, a netip.Addr, tries int) (Lease, error) {
	return c.exchange6(ctx, dhcpv6.MessageTypeRebind, dhcpv6.MessageTypeReply, a, nil, tries, refusals)
}

func (c *v6) renew(ctx context.Context, l Lease) (Lease, error) {
	a := l.Addr.Addr()
	return inTurn(ctx, l, func(ctx context.Context) (Lease, error) {
		return c.exchange6(ctx, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeReply, a, l.duid, 0, refusals)
	}, func(ctx context.Context) (Lease, error) { return c.rebind(ctx, a, 0) })
}

func (c *v6) release(l Lease) error { return c.tell(dhcpv6.MessageTypeRelease, l) }
func (c *v6) decline(l Lease) error { return c.tell(dhcpv6.MessageTypeDecline, l) }

// tell sends a message about a lease to its server.
func (c *v6) tell(kind dhcpv6.MessageType, l Lease) error {
	m, err := c.message(kind, l.Addr.Addr(), l.duid)
	if err != nil {
		return err
	}
	return c.send(m)
}

// refusals ends the asking with what a server says is wrong.
func refusals(error) bool { return true }

// exchange6 sends a message about an address to a server, nil: to all, and returns the lease of the answer. Where that
// has none, refused decides on the reason: true ends the asking with it.
func (c *v6) exchange6(
	ctx context.Context, kind, answer dhcpv6.MessageType, a netip.Addr, server dhcpv6.DUID, tries int,
	refused func(error) bool,
) (Lease, error) {
	m, err := c.message(kind, a, server)
	if err != nil {
		return Lease{}, err
	}
	var got Lease
	var why error
	began := time.Now()
	send := func() error {
		m.UpdateOption(dhcpv6.OptElapsedTime(min(time.Since(began), maxElapsed)))
		return c.send(m)
	}
	_, err = c.ask(ctx, send, tries, func(r *Message) bool {
		if r.v6 == nil || r.v6.MessageType != answer || r.v6.TransactionID != m.TransactionID ||
			!c.isMine(r.v6, server) {
			return false
		}
		got, why = leaseOf6(r.v6, c.iaid(), time.Now())
		return why == nil || refused(why)
	})
	if err == nil {
		err = why
	}
	return got, err
}

// maxElapsed is what the field holds, in hundredths of a second (RFC 8415 section 21.9).
const maxElapsed = 65535 * 10 * time.Millisecond

// isMine says whether an answer is to this client, and of the server that was asked (RFC 8415 section 16).
func (c *v6) isMine(r *dhcpv6.Message, server dhcpv6.DUID) bool {
	to, from := r.Options.ClientID(), r.Options.ServerID()
	return to != nil && from != nil && to.Equal(c.duid()) && (server == nil || from.Equal(server))
}

func (c *v6) duid() dhcpv6.DUID {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: c.cfg.MAC}
}

func (c *v6) iaid() [4]byte { return [4]byte(c.cfg.MAC[2:]) }

// message is one of the client's.
func (c *v6) message(kind dhcpv6.MessageType, a netip.Addr, server dhcpv6.DUID) (*dhcpv6.Message, error) {
	var addrs []dhcpv6.OptIAAddress
	if a.IsValid() {
		addrs = append(addrs, dhcpv6.OptIAAddress{IPv6Addr: a.AsSlice()})
	}
	m, err := dhcpv6.NewMessage(dhcpv6.WithClientID(c.duid()), dhcpv6.WithIAID(c.iaid()), dhcpv6.WithIANA(addrs...))
	if err != nil {
		return nil, err
	}
	m.MessageType = kind
	if server != nil {
		m.AddOption(dhcpv6.OptServerID(server))
	}
	if kind == dhcpv6.MessageTypeRelease || kind == dhcpv6.MessageTypeDecline {
		return m, nil
	}
	m.AddOption(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionFQDN))
	if c.cfg.Hostname != "" { // S: the server is to do the updates of the DNS (RFC 4704 section 4.1)
		m.AddOption(&dhcpv6.OptFQDN{Flags: 1, DomainName: &rfc1035label.Labels{Labels: []string{c.cfg.Hostname}}})
	}
	return m, nil
}

// send sends from the link-local address that the container has.
func (c *v6) send(m *dhcpv6.Message) error {
	return c.cfg.Send(allServersMAC, datagram6(vswitch.LinkLocal(c.cfg.MAC), allServers, m.ToBytes()))
}
