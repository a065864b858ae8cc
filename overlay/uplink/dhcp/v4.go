package dhcp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// v4 is DHCPv4, RFC 2131.
type v4 struct {
	exchange
	cfg Config
	mac net.HardwareAddr // where the frames of the lease's server came from
}

func newV4(cfg Config, closed <-chan struct{}) *v4 {
	return &v4{exchange: newExchange(closed), cfg: cfg}
}

func (c *v4) discover(ctx context.Context) (Lease, error) {
	offer, err := c.offered(ctx)
	if err != nil {
		return Lease{}, err
	}
	lease, _ := leaseOf(offer, time.Now()) // offered has looked
	return lease, nil
}

func (c *v4) acquire(ctx context.Context) (Lease, error) {
	for {
		offer, err := c.offered(ctx)
		if err != nil {
			return Lease{}, err
		}
		request, err := c.message(dhcpv4.MessageTypeRequest,
			dhcpv4.WithTransactionID(offer.TransactionID),
			dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())))
		if err != nil {
			return Lease{}, err
		}
		l, err := c.bind(ctx, request, c.broadcast, 4)
		if err == nil || ctx.Err() != nil {
			return l, err
		}
		// Refused, or the server is gone: it is asked again, as are the others.
		if !pause(ctx, firstWait) {
			return l, err
		}
	}
}

// resume is INIT-REBOOT, RFC 2131 section 4.3.2: a server that does not know is silent.
func (c *v4) resume(ctx context.Context, a netip.Addr) (Lease, error) {
	request, err := c.message(dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice())))
	if err != nil {
		return Lease{}, err
	}
	return c.bind(ctx, request, c.broadcast, 4)
}

func (c *v4) renew(ctx context.Context, l Lease) (Lease, error) {
	addr := l.Addr.Addr()
	request, err := c.message(dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(addr.AsSlice()))
	if err != nil {
		return Lease{}, err
	}
	bind := func(mac net.HardwareAddr, to netip.Addr) func(context.Context) (Lease, error) {
		return func(ctx context.Context) (Lease, error) {
			return c.bind(ctx, request, func(m *dhcpv4.DHCPv4) error {
				return c.cfg.Send(mac, datagram(addr, to, m.ToBytes()))
			}, 0)
		}
	}
	return inTurn(ctx, l, bind(c.mac, l.Server), bind(broadcastMAC, limitedBroadcast))
}

func (c *v4) release(l Lease) error {
	m, err := c.message(dhcpv4.MessageTypeRelease,
		dhcpv4.WithClientIP(l.Addr.Addr().AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.Server.AsSlice())))
	if err != nil {
		return err
	}
	return c.cfg.Send(c.mac, datagram(l.Addr.Addr(), l.Server, m.ToBytes()))
}

func (c *v4) decline(l Lease) error {
	m, err := c.message(dhcpv4.MessageTypeDecline,
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(l.Addr.Addr().AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.Server.AsSlice())))
	if err != nil {
		return err
	}
	return c.broadcast(m)
}

// offered returns an offer that is of use.
func (c *v4) offered(ctx context.Context) (*dhcpv4.DHCPv4, error) {
	var mods []dhcpv4.Modifier
	if c.cfg.Want.IsValid() {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(c.cfg.Want.AsSlice())))
	}
	m, err := c.message(dhcpv4.MessageTypeDiscover, mods...)
	if err != nil {
		return nil, err
	}
	reply, err := c.askFor(ctx, m, c.broadcast, 0, func(r *dhcpv4.DHCPv4) bool {
		_, ok := leaseOf(r, time.Now())
		return ok && r.MessageType() == dhcpv4.MessageTypeOffer
	})
	if err != nil {
		return nil, err
	}
	return reply.v4, nil
}

// bind sends a request, and returns the lease that is acknowledged.
func (c *v4) bind(
	ctx context.Context, request *dhcpv4.DHCPv4, send func(*dhcpv4.DHCPv4) error, tries int,
) (Lease, error) {
	reply, err := c.askFor(ctx, request, send, tries, func(r *dhcpv4.DHCPv4) bool {
		_, ok := leaseOf(r, time.Now())
		return r.MessageType() == dhcpv4.MessageTypeNak || ok && r.MessageType() == dhcpv4.MessageTypeAck
	})
	if err != nil {
		return Lease{}, err
	}
	if reply.v4.MessageType() == dhcpv4.MessageTypeNak {
		return Lease{}, fmt.Errorf("%w: %.100q", errRefused, reply.v4.Message())
	}
	l, _ := leaseOf(reply.v4, time.Now())
	c.mac = reply.From
	return l, nil
}

// askFor sends m until an answer to it is found good.
func (c *v4) askFor(
	ctx context.Context, m *dhcpv4.DHCPv4, send func(*dhcpv4.DHCPv4) error, tries int, good func(*dhcpv4.DHCPv4) bool,
) (*Message, error) {
	return c.ask(ctx, func() error { return send(m) }, tries, func(r *Message) bool {
		return r.v4 != nil && r.v4.TransactionID == m.TransactionID && good(r.v4)
	})
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (c *v4) broadcast(m *dhcpv4.DHCPv4) error {
	return c.cfg.Send(broadcastMAC, datagram(netip.IPv4Unspecified(), limitedBroadcast, m.ToBytes()))
}

// message is one of the client's.
func (c *v4) message(kind dhcpv4.MessageType, more ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	mods := []dhcpv4.Modifier{
		dhcpv4.WithHwAddr(c.cfg.MAC),
		dhcpv4.WithMessageType(kind),
	}
	if kind == dhcpv4.MessageTypeDiscover || kind == dhcpv4.MessageTypeRequest {
		mods = append(mods, dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter,
			dhcpv4.OptionDomainNameServer, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue))
		if c.cfg.Hostname != "" {
			mods = append(mods, dhcpv4.WithOption(dhcpv4.OptHostName(c.cfg.Hostname)))
		}
	}
	return dhcpv4.New(append(mods, more...)...)
}
