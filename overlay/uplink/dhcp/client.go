package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Config says for whom a client asks.
type Config struct {
	MAC      net.HardwareAddr
	Hostname string     // options 12 (DHCPv4) and 39 (DHCPv6); "": not sent
	Want     netip.Addr // the address that is asked for, or that the container has; invalid: any
	IPv6     bool       // it asks by DHCPv6
	// Send sends an IP packet to a station of the physical network.
	Send func(dst net.HardwareAddr, packet []byte) error
	// Taken says whether another station has an address that a server gives; nil: nobody looks.
	Taken func(ctx context.Context, a netip.Addr) (net.HardwareAddr, error)
	// Changed is told of a lease with another address than the one before, on the client's goroutine; nil: nobody is.
	Changed func(Lease)
	Logger  *slog.Logger
}

// Client has one lease. Make it with New, end it with Close. Take may be called at any time, Discover, Acquire and
// Resume once and not together.
type Client struct {
	cfg    Config
	server protocol
	ctx    context.Context
	cancel context.CancelFunc
	runs   sync.WaitGroup

	// lease is of the goroutine that speaks with the server: the caller's, and then the client's own.
	lease Lease
	dns   atomic.Pointer[[]netip.Addr] // the lease's; nil: there was none yet
}

// protocol is DHCPv4 or DHCPv6: messages, and who answers them. It is called by one goroutine, but for take.
type protocol interface {
	take(m *Message)
	// discover returns what a server offers.
	discover(ctx context.Context) (Lease, error)
	// acquire goes from INIT to BOUND.
	acquire(ctx context.Context) (Lease, error)
	// resume asks all servers whether an address is still the client's.
	resume(ctx context.Context, a netip.Addr) (Lease, error)
	// renew asks for more time: until l.Rebind the server, and then until l.Until all of them.
	renew(ctx context.Context, l Lease) (Lease, error)
	// release gives an address back, and decline says that another station has it. Nobody answers DHCPv4's, and nobody
	// waits for DHCPv6's answer: without it the lease ends by itself.
	release(l Lease) error
	decline(l Lease) error
}

// Errors of a client.
var (
	ErrNoAnswer = errors.New("no DHCP server answers")
	// ErrTaken is for addresses that servers give, and that stations have which the servers do not know.
	ErrTaken   = errors.New("the DHCP server gives an address that another station has")
	errRefused = errors.New("the DHCP server refuses the address")
)

// maxDeclined is how many addresses in a row may be another's before the client gives up.
const maxDeclined = 3

// New makes a client that has asked for nothing yet.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if cfg.IPv6 {
		c.server = newV6(cfg, c.ctx.Done())
	} else {
		c.server = newV4(cfg, c.ctx.Done())
	}
	return c
}

func (c *Client) hold(l Lease) {
	c.lease = l
	c.dns.Store(&l.DNS)
}

// NameServers are those of the lease. It may be called at any time.
func (c *Client) NameServers() []netip.Addr {
	if list := c.dns.Load(); list != nil {
		return *list
	}
	return nil
}

// Take takes a message that is for the client's MAC. It does not wait.
func (c *Client) Take(m *Message) { c.server.take(m) }

// Discover returns what a server offers, without taking it.
func (c *Client) Discover(ctx context.Context) (Lease, error) { return c.server.discover(ctx) }

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
		l, err := c.server.resume(c.ctx, c.cfg.Want)
		if err == nil && l.Addr.Addr() == c.cfg.Want {
			c.hold(l)
		} else {
			c.again()
		}
		c.keep()
	})
}

// Close ends the client; with release the address goes back to the server.
func (c *Client) Close(release bool) {
	c.cancel()
	c.runs.Wait()
	if !release || c.lease.Until.IsZero() { // no server has given it
		return
	}
	if err := c.server.release(c.lease); err != nil {
		c.cfg.Logger.Warn("an address was not given back to its DHCP server", "address", c.lease.Addr, "error", err)
	}
}

// keep renews the lease until Close.
func (c *Client) keep() {
	for c.ctx.Err() == nil {
		if !pause(c.ctx, time.Until(c.lease.Renew)) {
			return
		}
		l, err := c.server.renew(c.ctx, c.lease)
		switch {
		case err == nil && l.Addr.Addr() == c.lease.Addr.Addr():
			c.hold(l)
			continue
		case c.ctx.Err() != nil:
			return
		case err == nil:
			err = fmt.Errorf("the server gives %s now", l.Addr)
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
		err := c.acquireKnowing(ctx, before)
		cancel()
		if err != nil {
			pause(c.ctx, firstWait) // an error may come at once
			continue
		}
		if c.lease.Addr.Addr() != before && c.cfg.Changed != nil {
			c.cfg.Changed(c.lease)
		}
		return
	}
}

func (c *Client) acquire(ctx context.Context) error { return c.acquireKnowing(ctx, netip.Addr{}) }

// acquireKnowing takes an address that no other station has; own is one that the container has already. Others are
// declined (RFC 2131 section 3.1, step 5; RFC 8415 section 18.2.8).
func (c *Client) acquireKnowing(ctx context.Context, own netip.Addr) error {
	for n := 1; ; n++ {
		l, err := c.server.acquire(ctx)
		if err != nil {
			return err
		}
		var other net.HardwareAddr
		if a := l.Addr.Addr(); c.cfg.Taken != nil && a != own {
			if other, err = c.cfg.Taken(ctx, a); err != nil {
				return err
			}
		}
		if other == nil {
			c.hold(l)
			return nil
		}
		c.cfg.Logger.Warn("the DHCP server gives an address that another station has: it is told so", "address", l.Addr,
			"station", other.String())
		if err := c.server.decline(l); err != nil {
			return err
		}
		if n == maxDeclined {
			return fmt.Errorf("%w: %s is that of %s", ErrTaken, l.Addr.Addr(), other)
		}
	}
}
