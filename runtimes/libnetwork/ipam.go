package libnetwork

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/network"
)

// A pool is a subnet of one of the daemon's networks, and its id is the subnet. Docker asks for it before it makes the
// network of it, so that the daemon has, for that while, a network that only reserves the subnet.

// addressSpace is the name of what the IPAM drivers choose subnets from.
const addressSpace = "usernet"

// reservation begins the names of such networks.
const reservation = "docker-pool-"

// requestPool reserves a subnet, or finds that of a network which the user has named.
func (p *Plugin) requestPool(driver string) func(context.Context, daemon, poolRequest) (any, error) {
	return func(ctx context.Context, d daemon, q poolRequest) (any, error) {
		spec, err := q.spec(driver)
		if err != nil {
			return nil, err
		}
		ref := poolRef{Range: q.SubPool}
		n, err := d.Network(ctx, spec.Name)
		if errdefs.IsNotFound(err) {
			ref.Own = q.Options[optionNetwork] == ""
			if _, err = d.NetworkCreate(ctx, spec); err == nil || errdefs.IsConflict(err) {
				n, err = d.Network(ctx, spec.Name)
			}
		}
		if err != nil {
			return nil, err
		}
		ref.ID = n.ID
		subnet, err := q.subnetOf(n)
		if err == nil {
			err = p.state.change(func(c *content) {
				ref.Uses = c.Pools[subnet.String()].Uses + 1
				c.Pools[subnet.String()] = ref
			})
		}
		if err != nil && ref.Own {
			err = errors.Join(err, d.NetworkRemove(ctx, n.ID))
		}
		if err != nil {
			return nil, err
		}
		return poolResponse{PoolID: subnet.String(), Pool: subnet.String(), Data: map[string]string{}}, nil
	}
}

// spec is the network that the pool needs, if it is not there.
func (q poolRequest) spec(driver string) (network.NetworkSpec, error) {
	yes, no := true, false
	spec := network.NetworkSpec{Name: q.Options[optionNetwork], Driver: driver, Attachable: true}
	options := maps.Clone(q.Options)
	delete(options, optionNetwork)
	for name := range options {
		return spec, fmt.Errorf("--ipam-opt %s is not known: there is %s=NAME, of a network of usernet", name,
			optionNetwork)
	}
	if spec.Name == "" {
		spec.Name = reservation + strings.ToLower(rand.Text()[:12])
		spec.Labels = map[string]string{labelPool: "1"}
		spec.EnableIPv4, spec.EnableIPv6 = &yes, &no
		if q.V6 {
			spec.EnableIPv4, spec.EnableIPv6 = &no, &yes
		}
	} else if q.V6 {
		spec.EnableIPv6 = &yes
	}
	if q.Pool == "" {
		if q.SubPool != "" {
			return spec, errors.New("--ip-range needs --subnet")
		}
		return spec, nil
	}
	subnet, err := netip.ParsePrefix(q.Pool)
	if err != nil {
		return spec, fmt.Errorf("subnet: %w", err)
	}
	spec.Pools = []network.Pool{{Subnet: subnet.Masked()}}
	if q.SubPool != "" {
		if spec.Pools[0].Range, err = netip.ParsePrefix(q.SubPool); err != nil {
			return spec, fmt.Errorf("range: %w", err)
		}
	}
	return spec, nil
}

// subnetOf is the one of a network's subnets that the pool is.
func (q poolRequest) subnetOf(n dockernet.Inspect) (netip.Prefix, error) {
	for _, c := range n.IPAM.Config {
		if c.Subnet.Addr().Is6() == q.V6 && (q.Pool == "" || c.Subnet.String() == q.Pool) {
			return c.Subnet, nil
		}
	}
	if q.Pool != "" {
		return netip.Prefix{}, fmt.Errorf("network %s of usernet has not the subnet %s", n.Name, q.Pool)
	}
	return netip.Prefix{}, fmt.Errorf("network %s of usernet has no subnet of this family (IPv6: %t)", n.Name, q.V6)
}

// dropReservations removes the networks that reserved subnets, for the network that is now made of them.
func (p *Plugin) dropReservations(
	ctx context.Context, d daemon, q createNetworkRequest, pools []network.Pool,
) error {
	for i := range pools {
		ref, ok := p.poolOf(q, pools[i].Subnet)
		if !ok || !ref.Own {
			continue
		}
		if ref.Range != "" {
			var err error
			if pools[i].Range, err = netip.ParsePrefix(ref.Range); err != nil {
				return fmt.Errorf("range: %w", err)
			}
		}
		if err := d.NetworkRemove(ctx, ref.ID); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// releasePool ends a use of a subnet. Its reservation goes with the last one.
func (p *Plugin) releasePool(ctx context.Context, d daemon, q poolRequest) (any, error) {
	ref, ok := p.state.pool(q.PoolID)
	if !ok {
		return nothing, nil
	}
	if ref.Uses--; ref.Uses <= 0 && ref.Own {
		if err := d.NetworkRemove(ctx, ref.ID); err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
	}
	return nothing, p.state.change(func(c *content) {
		if c.Pools[q.PoolID] = ref; ref.Uses <= 0 {
			delete(c.Pools, q.PoolID)
		}
	})
}

// requestAddress chooses an address, or says whether one may be had.
func (p *Plugin) requestAddress(ctx context.Context, d daemon, q addressRequest) (any, error) {
	ref, ok := p.state.pool(q.PoolID)
	if !ok {
		return nil, fmt.Errorf("subnet %s is not one of Docker's here: remove the network and make it again", q.PoolID)
	}
	subnet, err := netip.ParsePrefix(q.PoolID)
	if err != nil {
		return nil, err
	}
	n, err := d.Network(ctx, ref.ID)
	if err != nil {
		return nil, err
	}
	var want netip.Addr
	if q.Address != "" {
		if want, err = bareAddr(q.Address); err != nil {
			return nil, fmt.Errorf("address: %w", err)
		}
	}
	answer := func(a netip.Addr) (any, error) {
		return addressResponse{netip.PrefixFrom(a, subnet.Bits()).String(), map[string]string{}}, nil
	}
	if q.Options[optionAddressType] == gatewayAddress {
		gateway, err := gatewayOf(n, subnet, want, ref.Own)
		if err != nil {
			return nil, err
		}
		return answer(gateway)
	}
	used := usedAddresses(n)
	if want.IsValid() {
		if !subnet.Contains(want) || used[want] || !p.pending.take(want) {
			return nil, fmt.Errorf("address %s is in use, or not in %s", want, subnet)
		}
		return answer(want)
	}
	from := subnet
	if ref.Range != "" {
		if from, err = netip.ParsePrefix(ref.Range); err != nil {
			return nil, err
		}
	}
	if a, ok := p.pending.choose(from, used); ok {
		return answer(a)
	}
	return nil, fmt.Errorf("no address of %s is free", from)
}

// gatewayOf is the gateway of a network's subnet. Another one may be asked for while the subnet is only reserved.
func gatewayOf(n dockernet.Inspect, subnet netip.Prefix, want netip.Addr, reserved bool) (netip.Addr, error) {
	for _, c := range n.IPAM.Config {
		switch {
		case c.Subnet != subnet:
		case !want.IsValid() || want == c.Gateway:
			if !c.Gateway.IsValid() {
				return netip.Addr{}, fmt.Errorf("network %s of usernet has no gateway", n.Name)
			}
			return c.Gateway, nil
		case reserved && subnet.Contains(want):
			return want, nil
		default:
			return netip.Addr{}, fmt.Errorf("the gateway of network %s is %s", n.Name, c.Gateway)
		}
	}
	return netip.Addr{}, fmt.Errorf("network %s of usernet has no subnet %s any more", n.Name, subnet)
}

// usedAddresses are those that containers and gateways of a network have, on all hosts.
func usedAddresses(n dockernet.Inspect) map[netip.Addr]bool {
	used := map[netip.Addr]bool{}
	for _, c := range n.IPAM.Config {
		used[c.Gateway] = true
		for _, a := range c.AuxAddress {
			used[a] = true
		}
	}
	for _, c := range n.Containers {
		used[c.IPv4Address.Addr()], used[c.IPv6Address.Addr()] = true, true
	}
	return used
}

func (p *Plugin) releaseAddress(_ context.Context, _ daemon, q addressRequest) (any, error) {
	if a, err := bareAddr(q.Address); err == nil {
		p.pending.release(a)
	}
	return nothing, nil
}

// pending are the addresses that were chosen for endpoints which are not made yet. The zero value is ready to use.
type pending struct {
	mu sync.Mutex
	at map[netip.Addr]time.Time // when they were chosen
}

// pendingFor is how long an address is kept for an endpoint that does not come: dockerd makes it at once.
const pendingFor = time.Minute

// take keeps an address, unless it is kept already.
func (p *pending) take(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.takeLocked(a)
}

func (p *pending) takeLocked(a netip.Addr) bool {
	now := time.Now()
	for k, at := range p.at {
		if now.Sub(at) > pendingFor {
			delete(p.at, k)
		}
	}
	if _, kept := p.at[a]; kept {
		return false
	}
	if p.at == nil {
		p.at = map[netip.Addr]time.Time{}
	}
	p.at[a] = now
	return true
}

func (p *pending) release(addrs ...netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range addrs {
		delete(p.at, a)
	}
}

// choose keeps an address of a subnet that is not in use. It begins somewhere in the upper half, since the daemon gives
// its own containers the lowest, and since another host of an overlay network may choose at the same time. The lower
// half follows when the upper is full.
func (p *pending) choose(from netip.Prefix, used map[netip.Addr]bool) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	host := min(from.Addr().BitLen()-from.Bits(), 16) // bits; there is no need to look at more addresses
	size := uint32(1) << host
	var b [4]byte
	_, _ = rand.Read(b[:]) // crypto/rand does not fail (Go 1.24)
	half := size / 2
	upper := size - half
	begin := binary.BigEndian.Uint32(b[:]) % upper
	for i := range size {
		n := half + (begin+i)%upper
		if i >= upper {
			n = i - upper
		}
		first, last := n == 0, n == size-1
		if (first || last && from.Addr().Is4()) && host > 1 {
			continue // the network's own, and the broadcast address
		}
		a := offset(from.Masked().Addr(), n)
		if !used[a] && p.takeLocked(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// offset is the n-th address after a.
func offset(a netip.Addr, n uint32) netip.Addr {
	b := a.AsSlice()
	tail := b[len(b)-4:]
	binary.BigEndian.PutUint32(tail, binary.BigEndian.Uint32(tail)+n)
	r, _ := netip.AddrFromSlice(b) // as long as an address is
	return r
}
