package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Config says for whom a client asks.
type Config struct {
	MAC      net.HardwareAddr
	Hostname string     // option 12; "": not sent
	Want     netip.Addr // the address that is asked for, or that the container has; invalid: any
	// Send sends an IP packet to a station of the physical network.
	Send func(dst net.HardwareAddr, packet []byte) error
	// Changed is told of a lease with another address than the one before, on the client's goroutine; nil: nobody is.
	Changed func(Lease)
	Logger  *slog.Logger
}

// Client has one lease. Make it with New, end it with Close. Take may be called at any time, Discover, Acquire and
// Resume once and not together.
type Client struct {
	cfg     Config
	replies chan *Message
	ctx     context.Context
	cancel  context.CancelFunc
	runs    sync.WaitGroup

	// Of the goroutine that speaks with the server: the caller's, and then the client's own.
	lease  Lease
	server net.HardwareAddr // where the server's frames came from
}

// Errors of a client.
var (
	ErrNoAnswer = errors.New("no DHCP server answers")
	errRefused  = errors.New("the DHCP server refuses the address")
)

// How long an answer is waited for at first, and at most: the time doubles (RFC 2131 section 4.1). The first is shorter
// than there, since a container's start waits for it.
const (
	firstWait = time.Second
	lastWait  = 64 * time.Second
)

// maxReplies is how many messages of servers wait to be read; more are lost, as on any network.
const maxReplies = 16

// New makes a client that has asked for nothing yet.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg, replies: make(chan *Message, maxReplies)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Take takes a message that is for the client's MAC. It does not wait.
func (c *Client) Take(m *Message) {
	select {
	case c.replies <- m:
	default:
	}
}

// Discover returns what a server offers, without taking it.
func (c *Client) Discover(ctx context.Context) (Lease, error) {
	offer, err := c.discover(ctx)
	if err != nil {
		return Lease{}, err
	}
	lease, _ := leaseOf(offer, time.Now()) // discover has looked
	return lease, nil
}

// Acquire takes a lease, and renews it until Close.
func (c *Client) Acquire(ctx context.Context) (Lease, error) {
	if err := c.acquire(ctx); err != nil {
		return Lease{}, err
	}
	lease := c.lease
	c.runs.Go(c.keep)
	return lease, nil
}

// Resume renews the lease of Config.Want, which was taken by an earlier process, until Close.
func (c *Client) Resume() {
	c.runs.Go(func() {
		c.lease.Addr = netip.PrefixFrom(c.cfg.Want, c.cfg.Want.BitLen())
		if c.reboot(c.ctx) != nil {
			c.again()
		}
		c.keep()
	})
}

// Close ends the client; with release the address goes back to the server.
func (c *Client) Close(release bool) {
	c.cancel()
	c.runs.Wait()
	if !release || !c.lease.Server.IsValid() {
		return
	}
	m, err := c.message(dhcpv4.MessageTypeRelease,
		dhcpv4.WithClientIP(c.lease.Addr.Addr().AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(c.lease.Server.AsSlice())))
	if err == nil {
		err = c.cfg.Send(c.server, datagram(c.lease.Addr.Addr(), c.lease.Server, m.ToBytes()))
	}
	if err != nil {
		c.cfg.Logger.Warn("an address was not given back to its DHCP server", "address", c.lease.Addr, "error", err)
	}
}

// keep renews the lease until Close.
func (c *Client) keep() {
	for c.ctx.Err() == nil {
		if !c.sleep(time.Until(c.lease.Renew)) {
			return
		}
		err := c.renew()
		if err == nil || c.ctx.Err() != nil {
			continue
		}
		c.cfg.Logger.Error("a DHCP lease was not renewed: another is asked for", "address", c.lease.Addr, "error", err)
		c.again()
	}
}

// again takes a lease for as long as that takes, and tells whom it concerns of another address.
func (c *Client) again() {
	before := c.lease.Addr.Addr()
	for c.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(c.ctx, lastWait)
		err := c.acquire(ctx)
		cancel()
		if err != nil {
			continue
		}
		if c.lease.Addr.Addr() != before && c.cfg.Changed != nil {
			c.cfg.Changed(c.lease)
		}
		return
	}
}

// acquire goes from INIT to BOUND.
func (c *Client) acquire(ctx context.Context) error {
	for {
		offer, err := c.discover(ctx)
		if err != nil {
			return err
		}
		request, err := c.message(dhcpv4.MessageTypeRequest,
			dhcpv4.WithTransactionID(offer.TransactionID),
			dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())))
		if err != nil {
			return err
		}
		if err = c.bind(ctx, request, c.broadcast, 4); err == nil || ctx.Err() != nil {
			return err
		}
		// Refused, or the server is gone: it is asked again, as are the others.
		if !c.pause(ctx, firstWait) {
			return err
		}
	}
}

// reboot asks whether an address is still the client's, RFC 2131 section 4.3.2: a server that does not know is silent.
func (c *Client) reboot(ctx context.Context) error {
	request, err := c.message(dhcpv4.MessageTypeRequest,
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(c.cfg.Want.AsSlice())))
	if err != nil {
		return err
	}
	return c.bind(ctx, request, c.broadcast, 4)
}

// renew asks for more time: the server first, and then all of them.
func (c *Client) renew() error {
	addr := c.lease.Addr.Addr()
	request, err := c.message(dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(addr.AsSlice()))
	if err != nil {
		return err
	}
	toServer := func(m *dhcpv4.DHCPv4) error {
		return c.cfg.Send(c.server, datagram(addr, c.lease.Server, m.ToBytes()))
	}
	toAll := func(m *dhcpv4.DHCPv4) error {
		return c.cfg.Send(broadcastMAC, datagram(addr, limitedBroadcast, m.ToBytes()))
	}
	for _, step := range []struct {
		until time.Time
		send  func(*dhcpv4.DHCPv4) error
	}{{c.lease.Rebind, toServer}, {c.lease.Until, toAll}} {
		ctx, cancel := context.WithDeadline(c.ctx, step.until)
		err = c.bind(ctx, request, step.send, 0)
		cancel()
		if err == nil || errors.Is(err, errRefused) || c.ctx.Err() != nil {
			return err
		}
	}
	return err
}

// discover returns an offer that is of use.
func (c *Client) discover(ctx context.Context) (*dhcpv4.DHCPv4, error) {
	var mods []dhcpv4.Modifier
	if c.cfg.Want.IsValid() {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(c.cfg.Want.AsSlice())))
	}
	m, err := c.message(dhcpv4.MessageTypeDiscover, mods...)
	if err != nil {
		return nil, err
	}
	reply, err := c.ask(ctx, m, c.broadcast, 0, func(r *dhcpv4.DHCPv4) bool {
		_, ok := leaseOf(r, time.Now())
		return ok && r.MessageType() == dhcpv4.MessageTypeOffer
	})
	if err != nil {
		return nil, err
	}
	return reply.body, nil
}

// bind sends a request, and has the lease that is acknowledged.
func (c *Client) bind(
	ctx context.Context, request *dhcpv4.DHCPv4, send func(*dhcpv4.DHCPv4) error, tries int,
) error {
	reply, err := c.ask(ctx, request, send, tries, func(r *dhcpv4.DHCPv4) bool {
		_, ok := leaseOf(r, time.Now())
		return r.MessageType() == dhcpv4.MessageTypeNak || ok && r.MessageType() == dhcpv4.MessageTypeAck
	})
	if err != nil {
		return err
	}
	if reply.body.MessageType() == dhcpv4.MessageTypeNak {
		return fmt.Errorf("%w: %s", errRefused, reply.body.Message())
	}
	c.lease, _ = leaseOf(reply.body, time.Now())
	c.server = reply.From
	return nil
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (c *Client) broadcast(m *dhcpv4.DHCPv4) error {
	return c.cfg.Send(broadcastMAC, datagram(netip.IPv4Unspecified(), limitedBroadcast, m.ToBytes()))
}

// message is one of the client's.
func (c *Client) message(kind dhcpv4.MessageType, more ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	mods := []dhcpv4.Modifier{
		dhcpv4.WithHwAddr(c.cfg.MAC),
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter,
			dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue),
	}
	if c.cfg.Hostname != "" {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptHostName(c.cfg.Hostname)))
	}
	return dhcpv4.New(append(mods, more...)...)
}

// ask sends m until an answer is found good; tries is how often at most, 0: until ctx ends.
func (c *Client) ask(
	ctx context.Context, m *dhcpv4.DHCPv4, send func(*dhcpv4.DHCPv4) error, tries int, good func(*dhcpv4.DHCPv4) bool,
) (*Message, error) {
	wait := firstWait
	var unsent error
	for n := 0; tries == 0 || n < tries; n++ {
		if err := send(m); err != nil {
			unsent = err // the device may come back
		}
		// RFC 2131 section 4.1: up to a second is added or taken away, so that clients do not ask all at once.
		timer := time.NewTimer(wait + time.Duration(rand.Int64N(int64(wait/2))))
		reply, err := c.await(ctx, timer.C, m.TransactionID, good)
		timer.Stop()
		switch {
		case reply != nil:
			return reply, nil
		case err != nil:
			return nil, errors.Join(fmt.Errorf("%w: %w", ErrNoAnswer, err), unsent)
		}
		wait = min(2*wait, lastWait)
	}
	return nil, errors.Join(ErrNoAnswer, unsent)
}

// await returns the next answer that is good; nil where the time is over first.
func (c *Client) await(
	ctx context.Context, over <-chan time.Time, id dhcpv4.TransactionID, good func(*dhcpv4.DHCPv4) bool,
) (*Message, error) {
	for {
		select {
		case r := <-c.replies:
			if r.body.TransactionID == id && good(r.body) {
				return r, nil
			}
		case <-over:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.ctx.Done():
			return nil, c.ctx.Err()
		}
	}
}

// sleep waits, and is false where the client is closed meanwhile.
func (c *Client) sleep(d time.Duration) bool { return c.pause(c.ctx, d) }

func (c *Client) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return false
}
