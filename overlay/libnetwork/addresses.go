package libnetwork

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/kv"
)

var _ network.Allocator = (*Member)(nil)

// maxTries bounds how often a record is read and written again because another host was faster.
const maxTries = 32

// errNoneFree says that all bits are set, and errTaken that the wanted one is.
var (
	errNoneFree = errors.New("none is free")
	errTaken    = errors.New("it is taken")
)

// change reads a record, and writes what edit makes of it if it is still the same; else it does so again. Nil for a
// record that is not there; nil from edit deletes it.
func (m *Member) change(ctx context.Context, key string, edit func(old []byte) ([]byte, error)) error {
	for range maxTries {
		err := m.tryChange(ctx, key, edit)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		kv.Sleep(ctx, time.Duration(rand.IntN(20))*time.Millisecond) // the hosts do not meet again
	}
	return fmt.Errorf("%s: other hosts write it all the time", key)
}

func (m *Member) tryChange(ctx context.Context, key string, edit func(old []byte) ([]byte, error)) error {
	ctx, cancel := within(ctx, callTimeout)
	defer cancel()
	p, err := m.store.Get(ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	value, err := edit(p.Value)
	switch {
	case err != nil:
		return err
	case value != nil:
		return m.store.Put(ctx, key, value, p.Index)
	case p.Index == 0:
		return nil
	}
	return m.store.Delete(ctx, key, p.Index)
}

// changeBits does so with a bitmap.
func (m *Member) changeBits(ctx context.Context, key string, edit func(b *bitmap) error) error {
	return m.change(ctx, key, func(old []byte) ([]byte, error) {
		if old == nil {
			return nil, fmt.Errorf("%s: %w", key, ErrNotFound)
		}
		b, err := decodeBitmap(old)
		if err == nil {
			err = edit(b)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		return b.encode()
	})
}

// ordinal is an address's bit.
func ordinal(subnet netip.Prefix, a netip.Addr) uint64 {
	base, ip := subnet.Masked().Addr().As4(), a.As4()
	return uint64(binary.BigEndian.Uint32(ip[:]) - binary.BigEndian.Uint32(base[:]))
}

// nth is the address of a bit.
func nth(subnet netip.Prefix, i uint64) netip.Addr {
	base := subnet.Masked().Addr().As4()
	binary.BigEndian.PutUint32(base[:], binary.BigEndian.Uint32(base[:])+uint32(i))
	return netip.AddrFrom4(base)
}

// sizeOf is how many addresses a subnet has.
func sizeOf(subnet netip.Prefix) uint64 { return 1 << (32 - subnet.Bits()) }

// Reserve implements network.Allocator: the address's bit is set in Docker's bitmap of the subnet.
func (m *Member) Reserve(
	ctx context.Context,
	n *network.Network,
	p network.Pool,
	want netip.Addr,
	owner string,
) (netip.Addr, error) {
	if have, is := m.leases.of(n.ID, owner, p.Subnet); is {
		return have, nil
	}
	var got netip.Addr
	err := m.changeBits(ctx, addressesKey(p.Subnet), func(b *bitmap) (err error) {
		if b.size != sizeOf(p.Subnet) {
			return errBits
		}
		got, err = choose(b, p, want)
		return err
	})
	switch {
	case errors.Is(err, errTaken):
		return netip.Addr{}, errdefs.Forbidden("Address already in use")
	case errors.Is(err, errNoneFree):
		return netip.Addr{}, errdefs.Internal("no available addresses on this network's address pools: %s (%s)", n.Name,
			n.ID)
	case err != nil:
		return netip.Addr{}, errdefs.Unavailable("network %s: no address was taken in the store of Docker's hosts: %w",
			n.Name, err)
	}
	if err := m.leases.add(place{n.ID, got}, p.Subnet, owner); err != nil {
		m.log.Error("an address will stay taken if this daemon is killed", "address", got, "error", err)
	}
	return got, nil
}

// choose sets the bit of a wanted address, or of the lowest free one.
func choose(b *bitmap, p network.Pool, want netip.Addr) (netip.Addr, error) {
	if want.IsValid() {
		if !b.set(ordinal(p.Subnet, want), true) {
			return want, errTaken
		}
		return want, nil
	}
	within := p.Subnet
	if p.Range.IsValid() {
		within = p.Range
	}
	from := ordinal(p.Subnet, within.Masked().Addr())
	for last := from + sizeOf(within) - 1; ; {
		i, is := b.firstFree(from, last)
		if !is {
			return netip.Addr{}, errNoneFree
		}
		if a := nth(p.Subnet, i); !p.Reserved(a) {
			b.set(i, true)
			return a, nil
		}
		from = i + 1
	}
}

// Adopt notes an address that an endpoint has from an earlier life.
func (m *Member) Adopt(id string, a netip.Addr, owner string) { m.leases.adopt(place{id, a}, owner) }

// Release implements network.Allocator. The worker gives the address back.
func (m *Member) Release(n *network.Network, a netip.Addr, owner string) {
	if m.leases.release(place{n.ID, a}, owner) {
		m.wake()
	}
}

// giveBack clears the bits of addresses that are to be given back.
func (m *Member) giveBack(ctx context.Context) error {
	v := m.known()
	if err := m.leases.forgetNetworks(func(id string) bool { return v.networks[id] != nil }); err != nil {
		return err
	}
	for p, l := range m.leases.leaving() {
		if other := v.networks[p.network].at(p.addr); other != nil && other.EndpointID != l.owner {
			m.log.Warn("an address that this host had is another's: it stays taken", "address", p.addr, "host", other.At)
			if err := m.leases.remove(p); err != nil {
				return err
			}
			continue
		}
		if err := m.giveBackOne(ctx, p, l); err != nil {
			return err
		}
	}
	return nil
}

func (m *Member) giveBackOne(ctx context.Context, p place, l lease) error {
	err := m.changeBits(ctx, addressesKey(l.subnet), func(b *bitmap) error {
		if b.size != sizeOf(l.subnet) {
			return errBits
		}
		b.set(ordinal(l.subnet, p.addr), false)
		return nil
	})
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, errBits) {
		return fmt.Errorf("address %v is not given back yet: %w", p.addr, err)
	}
	return m.leases.remove(p)
}

// at is the endpoint with an address; nil: there is none. k may be nil.
func (k *known) at(a netip.Addr) *endpoint {
	if k == nil {
		return nil
	}
	for _, e := range k.endpoints {
		if e.Addrs[0] == a {
			return e
		}
	}
	return nil
}
