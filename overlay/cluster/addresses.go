package cluster

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

var _ network.Allocator = (*Cluster)(nil)

// leases are the addresses of a network that endpoints of this host have.
type leases struct {
	claiming sync.Mutex // held while a block is claimed, so that one is claimed at a time

	mu    sync.Mutex // guards owner; never held while waiting
	owner map[netip.Addr]string
}

// take gives an address to an endpoint, unless another has it.
func (l *leases) take(a netip.Addr, owner string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.owner[a]; o != "" {
		return o == owner
	}
	l.owner[a] = owner
	return true
}

func (l *leases) of(owner string, p netip.Prefix) (netip.Addr, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a, o := range l.owner {
		if o == owner && p.Contains(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (c *Cluster) leasesOf(network string) *leases {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.mu.leases[network]
	if l == nil {
		l = &leases{owner: map[netip.Addr]string{}}
		c.mu.leases[network] = l
	}
	return l
}

// Adopt notes an address that an endpoint has from an earlier life.
func (c *Cluster) Adopt(network string, a netip.Addr, owner string) {
	c.leasesOf(network).take(a, owner)
}

// Release implements network.Allocator.
func (c *Cluster) Release(n *network.Network, a netip.Addr, owner string) {
	l := c.leasesOf(n.ID)
	l.mu.Lock()
	if l.owner[a] == owner {
		delete(l.owner, a)
	}
	l.mu.Unlock()
	t := c.Table()
	if e, is := t.EndpointAt(n.ID, a); is && e.EndpointID == owner {
		t.Drop(overlay.EndpointKey(n.ID, a)) // one that was asked for by --ip, and whose container never started
	}
}

// Reserve implements network.Allocator: an address of a block of this host's, or the one that was asked for.
func (c *Cluster) Reserve(
	ctx context.Context,
	n *network.Network,
	p network.Pool,
	want netip.Addr,
	owner string,
) (netip.Addr, error) {
	l := c.leasesOf(n.ID)
	if have, is := l.of(owner, p.Subnet); is {
		return have, nil
	}
	if want.IsValid() {
		return want, c.reserveWanted(ctx, n, l, want, owner)
	}
	if a, ok := c.fromBlocks(n, p, l, owner); ok {
		return a, nil
	}
	l.claiming.Lock()
	defer l.claiming.Unlock()
	for {
		if a, ok := c.fromBlocks(n, p, l, owner); ok { // of a block that was claimed while this one waited
			return a, nil
		}
		switch err := c.claimBlock(ctx, c.Table(), n.ID, p); {
		case errors.Is(err, errNoBlock):
			return c.claimSingle(ctx, n, p, l, owner)
		case err != nil:
			return netip.Addr{}, errdefs.Unavailable(
				"network %s: this host has no free address of its own, and cannot claim more: %w",
				n.Name,
				err,
			)
		}
	}
}

// reserveWanted reserves the address that a user asked for. Outside this host's own blocks it is claimed.
func (c *Cluster) reserveWanted(
	ctx context.Context,
	n *network.Network,
	l *leases,
	want netip.Addr,
	owner string,
) error {
	if !l.take(want, owner) {
		return errdefs.Forbidden("Address already in use")
	}
	t := c.Table()
	self := c.Identity()
	e, taken := t.EndpointAt(n.ID, want)
	if taken && e.Host != self.ID {
		c.Release(n, want, owner)
		return errdefs.Forbidden("Address already in use: container %s on host %s has it", e.Name, c.hostName(e.Host))
	}
	for _, b := range t.Blocks(n.ID) {
		if b.Host == self.ID && b.Prefix.Contains(want) {
			return nil
		}
	}
	err := c.claimAddress(ctx, t, n.ID, want, owner)
	if err == nil {
		return nil
	}
	c.Release(n, want, owner)
	var other *table.TakenError
	if errors.As(err, &other) {
		return errdefs.Forbidden("Address already in use: host %s has it", c.hostName(other.Row.Owner))
	}
	return errdefs.Unavailable("address %s is none of this host's own, and was not claimed: %w", want, err)
}

// claimAddress claims a single address. The record becomes that of the container when it starts.
func (c *Cluster) claimAddress(ctx context.Context, t *table.Table, network string, a netip.Addr, owner string) error {
	id := c.Identity()
	value, err := overlay.Encode(overlay.Endpoint{
		Network:     network,
		Addrs:       []netip.Addr{a},
		MAC:         overlay.MAC{0x02},
		Host:        id.ID,
		Incarnation: id.Incarnation,
		EndpointID:  owner,
		Container:   owner,
	})
	if err != nil {
		return err
	}
	return t.Claim(ctx, overlay.EndpointKey(network, a), value)
}

// fromBlocks takes the lowest free address of this host's blocks.
func (c *Cluster) fromBlocks(n *network.Network, p network.Pool, l *leases, owner string) (netip.Addr, bool) {
	t, self := c.Table(), c.Identity().ID
	for _, b := range t.Blocks(n.ID) {
		if b.Host != self || !p.Subnet.Overlaps(b.Prefix) {
			continue
		}
		for a := b.Prefix.Addr(); a.IsValid() && b.Prefix.Contains(a) && p.Subnet.Contains(a); a = a.Next() {
			if p.Reserved(a) || p.Range.IsValid() && !p.Range.Contains(a) {
				continue
			}
			if e, is := t.EndpointAt(n.ID, a); is && e.Host != self {
				continue // claimed by --ip on another host
			}
			if l.take(a, owner) {
				if o, _ := l.of(owner, p.Subnet); o == a {
					return a, true
				}
			}
		}
	}
	return netip.Addr{}, false
}

// errNoBlock says that all blocks of a subnet are claimed.
var errNoBlock = errors.New("all blocks of the subnet are claimed")

// blockBits is the length of the blocks of a subnet: /26 of subnets up to /20, and smaller ones of smaller subnets (16
// of each), so that many hosts find one; of IPv6, 65536 addresses.
func blockBits(subnet netip.Prefix) int {
	bits := subnet.Bits()
	switch {
	case subnet.Addr().Is6():
		return min(max(bits+4, 112), 128)
	case bits <= 20:
		return 26
	}
	return min(bits+4, 32)
}

// maxBlockTries bounds how many blocks a host tries to claim at once. Each time another host was faster.
const maxBlockTries = 16

// claimBlock claims one more block of a subnet.
func (c *Cluster) claimBlock(ctx context.Context, t *table.Table, id string, p network.Pool) error {
	within := p.Subnet
	if p.Range.IsValid() {
		within = p.Range
	}
	bits := max(blockBits(p.Subnet), within.Bits())
	taken := map[netip.Prefix]bool{}
	for _, b := range t.Blocks(id) {
		taken[b.Prefix] = true
	}
	count := uint64(1) << min(bits-within.Bits(), 32)
	first := c.spread(id, count)
	self := c.Identity().ID
	for i, tries := uint64(0), 0; i < count && i <= uint64(len(taken)+maxBlockTries); i++ {
		block := nthBlock(within, bits, (first+i)%count)
		if taken[block] || unusable(block, p) {
			continue
		}
		value, err := overlay.Encode(overlay.Block{Network: id, Prefix: block, Host: self})
		if err != nil {
			return err
		}
		err = t.Claim(ctx, overlay.BlockKey(id, block), value)
		var other *table.TakenError
		if !errors.As(err, &other) {
			return err
		}
		taken[block] = true
		if tries++; tries == maxBlockTries {
			return err
		}
	}
	return errNoBlock
}

// unusable says whether a block has only addresses that no container may have.
func unusable(block netip.Prefix, p network.Pool) bool {
	if block.Addr().BitLen()-block.Bits() > 3 {
		return false
	}
	for a := block.Addr(); a.IsValid() && block.Contains(a); a = a.Next() {
		if !p.Reserved(a) {
			return false
		}
	}
	return true
}

// nthBlock is the nth part of a prefix.
func nthBlock(p netip.Prefix, bits int, n uint64) netip.Prefix {
	b := p.Masked().Addr().AsSlice()
	for bit := bits - 1; n != 0 && bit >= p.Bits(); bit-- {
		if n&1 != 0 {
			b[bit/8] |= 0x80 >> (bit % 8)
		}
		n >>= 1
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, bits)
}

// claimSingle claims one address of another host's block, where no block is left.
func (c *Cluster) claimSingle(
	ctx context.Context,
	n *network.Network,
	p network.Pool,
	l *leases,
	owner string,
) (netip.Addr, error) {
	within := p.Subnet
	if p.Range.IsValid() {
		within = p.Range
	}
	t := c.Table()
	tries := 0
	// From the end, since blocks are used from their beginning.
	for a := last(within); a.IsValid() && within.Contains(a) && tries < maxBlockTries; a = a.Prev() {
		if _, is := t.EndpointAt(n.ID, a); is || p.Reserved(a) || !l.take(a, owner) {
			continue
		}
		err := c.claimAddress(ctx, t, n.ID, a, owner)
		if err == nil {
			return a, nil
		}
		c.Release(n, a, owner)
		var other *table.TakenError
		if !errors.As(err, &other) {
			return netip.Addr{}, errdefs.Unavailable(
				"network %s: all blocks of %s are other hosts', and no single address was claimed: %w",
				n.Name,
				p.Subnet,
				err,
			)
		}
		tries++
	}
	return netip.Addr{}, errdefs.Internal(
		"no available addresses on this network's address pools: %s (%s)",
		n.Name,
		n.ID,
	)
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// claimAhead claims a first block of each network that this host has none of, so that containers start while the
// backend is away. The last half of the blocks is left to those who need them.
func (c *Cluster) claimAhead(t *table.Table) {
	self := c.Identity().ID
	for _, r := range t.Networks() {
		n := NetworkOf(r)
		blocks := t.Blocks(n.ID)
		for _, p := range n.Pools {
			own, claimed := false, uint64(0)
			for _, b := range blocks {
				if p.Subnet.Overlaps(b.Prefix) {
					claimed++
					own = own || b.Host == self
				}
			}
			if own || claimed*2 >= uint64(1)<<min(blockBits(p.Subnet)-p.Subnet.Bits(), 32) {
				continue
			}
			l := c.leasesOf(n.ID)
			l.claiming.Lock()
			var err error
			if !c.hasBlock(t, n.ID, p.Subnet) {
				err = c.claimBlock(c.ctx, t, n.ID, p)
			}
			l.claiming.Unlock()
			if err != nil {
				c.log.Debug("no addresses claimed ahead", "network", n.Name, "error", err)
				return
			}
		}
	}
}

func (c *Cluster) hasBlock(t *table.Table, network string, subnet netip.Prefix) bool {
	self := c.Identity().ID
	for _, b := range t.Blocks(network) {
		if b.Host == self && subnet.Overlaps(b.Prefix) {
			return true
		}
	}
	return false
}
