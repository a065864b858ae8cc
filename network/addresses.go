package network

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/btree"
)

// addresses are those that the endpoints of one network have.
type addresses struct {
	// used and macs count the endpoints that have an address: more than one only where hosts of a cluster disagree.
	used  map[netip.Addr]int
	macs  map[MAC]int
	pools []*freeAddresses // of the network's pools; none: the network is not there
	// The containers that have changed last, by the number of the change: recent[i%len(recent)] has the i-th.
	recent  [64]string
	changes uint64
}

// freeAddresses finds the lowest address of a pool that nobody has.
type freeAddresses struct {
	pool Pool
	// next is the lowest address of the pool's range above which none was ever given; all below are used, reserved, or
	// in again. Invalid, or outside of the range: there is none.
	next  netip.Addr
	again *btree.BTreeG[netip.Addr]
}

// noteChange notes a change of a container that is on the network, or was until now.
func (a *addresses) noteChange(container string) {
	a.recent[a.changes%uint64(len(a.recent))] = container
	a.changes++
}

// ChangedOn returns the ids of containers on a network of which anything has changed after as many changes as since,
// the container gone or off the network included, and how many changes there were. known is false where that is too
// long ago: then anybody may have changed.
func (m *Model) ChangedOn(networkID string, since uint64) (ids []string, now uint64, known bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	a := m.addresses[networkID]
	if a == nil {
		return nil, 0, false
	}
	known = since <= a.changes && a.changes-since <= uint64(len(a.recent))
	for i := since; known && i < a.changes; i++ {
		if id := a.recent[i%uint64(len(a.recent))]; !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, a.changes, known
}

// forgetChanges has all changes until now be too long ago for ChangedOn, in records that take the place of others.
func (r *records) forgetChanges(before *records) {
	for id, a := range r.addresses {
		if old := before.addresses[id]; old != nil {
			a.changes += old.changes
		}
		a.changes += uint64(len(a.recent)) + 1
	}
}

// addressesOf are those of a network, and none where it has none.
func (r *records) addressesOf(networkID string) *addresses {
	a := r.addresses[networkID]
	if a == nil {
		a = &addresses{used: map[netip.Addr]int{}, macs: map[MAC]int{}}
		r.addresses[networkID] = a
	}
	return a
}

// dropIfUnused forgets the addresses of a network that is gone, once no endpoint has any.
func (r *records) dropIfUnused(networkID string) {
	if a := r.addresses[networkID]; a != nil && r.networks[networkID] == nil && len(a.used)+len(a.macs) == 0 {
		delete(r.addresses, networkID)
	}
}

// eachAddress calls f and mac with what the endpoints of a container have.
func (r *records) eachAddress(c *Container, f func(*addresses, netip.Addr), mac func(*addresses, MAC)) {
	for _, e := range c.Endpoints {
		var list []netip.Addr
		for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
			if p.IsValid() {
				list = append(list, p.Addr())
			}
		}
		if c.Status != Exited {
			list = append(list, e.LinkLocal...)
		}
		if len(list) == 0 && e.MAC == (MAC{}) {
			continue
		}
		a := r.addressesOf(e.NetworkID)
		for _, x := range list {
			f(a, x)
		}
		if e.MAC != (MAC{}) {
			mac(a, e.MAC)
		}
	}
}

func (a *addresses) takeMAC(m MAC) { a.macs[m]++ }

func (a *addresses) dropMAC(m MAC) {
	if a.macs[m]--; a.macs[m] <= 0 {
		delete(a.macs, m)
	}
}

func (a *addresses) take(x netip.Addr) {
	a.used[x]++
	for _, f := range a.pools {
		f.again.Delete(x)
		a.advance(f)
	}
}

func (a *addresses) drop(x netip.Addr) {
	if a.used[x]--; a.used[x] > 0 {
		return
	}
	delete(a.used, x)
	for _, f := range a.pools {
		if f.in(x) && (!f.in(f.next) || x.Less(f.next)) && !f.pool.Reserved(x) {
			f.again.ReplaceOrInsert(x)
		}
	}
}

// setPools has addresses be found in the pools of a network, which seldom change.
func (a *addresses) setPools(pools []Pool) {
	if len(pools) == len(a.pools) {
		same := true
		for i, f := range a.pools {
			same = same && reflect.DeepEqual(f.pool, pools[i])
		}
		if same {
			return
		}
	}
	a.pools = nil
	for _, p := range pools {
		f := &freeAddresses{pool: p, again: btree.NewG(32, netip.Addr.Less)}
		f.next = p.span().Masked().Addr()
		a.advance(f)
		a.pools = append(a.pools, f)
	}
}

// advance goes on to the next address that is free. Each address is passed once.
func (a *addresses) advance(f *freeAddresses) {
	for f.in(f.next) && (a.used[f.next] > 0 || f.pool.Reserved(f.next)) {
		f.next = f.next.Next()
	}
}

func (f *freeAddresses) in(x netip.Addr) bool { return x.IsValid() && f.pool.span().Contains(x) }

// span is what the pool's addresses are chosen from.
func (p *Pool) span() netip.Prefix {
	if p.Range.IsValid() {
		return p.Range
	}
	return p.Subnet
}

// taken are the addresses of a network that an endpoint which is about to be made cannot have.
type taken struct {
	*addresses
	more map[netip.Addr]bool // besides
}

// taken are those of a network; more are its caller's to add.
func (r *records) taken(networkID string) taken {
	a := r.addresses[networkID]
	if a == nil {
		a = &addresses{}
	}
	return taken{a, map[netip.Addr]bool{}}
}

func (t taken) has(x netip.Addr) bool { return t.used[x] > 0 || t.more[x] }

// lowestFree is the first address of the range of one of the network's pools that is neither reserved nor taken.
func (t taken) lowestFree(p *Pool) (found netip.Addr, ok bool) {
	for _, f := range t.pools {
		if f.pool.Subnet != p.Subnet {
			continue
		}
		f.again.Ascend(func(x netip.Addr) bool {
			if ok = !t.more[x]; ok {
				found = x
			}
			return !ok
		})
		for x := f.next; !ok && f.in(x); x = x.Next() {
			if !t.has(x) && !p.Reserved(x) {
				return x, true
			}
		}
		return found, ok
	}
	return netip.Addr{}, false
}
