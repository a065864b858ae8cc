package forwarder

import (
	"math"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/usernet/usernet/forwarder/mapping"
	"github.com/usernet/usernet/internal/budget"
	"github.com/usernet/usernet/internal/sockio"
)

// Limits bound what may exist at once, for one container or for the daemon. 0 does not limit.
type Limits struct {
	Dialling int // TCP connections being set up
	TCP      int // TCP connections
	UDP      int // UDP associations
	Clients  int // clients of published UDP ports
	Echo     int // identifiers being pinged with
	// Memory bounds the buffers of TCP connections through the gateway, in bytes.
	Memory int64
}

// DefaultLimits, for a container, serve a busy one and leave room for others.
var DefaultLimits = Limits{Dialling: 1024, TCP: 16384, UDP: 4096, Clients: 4096, Echo: 64, Memory: 128 << 20}

// usageKind is what a limit counts.
type usageKind int

const (
	useDialling usageKind = iota
	useTCP
	useUDP
	useClients
	useEcho
	usageKinds
)

// of is the limit on a kind.
func (l Limits) of(k usageKind) int {
	return [usageKinds]int{l.Dialling, l.TCP, l.UDP, l.Clients, l.Echo}[k]
}

// usage is what one container has at once.
type usage [usageKinds]int

// limitCounters say where a use beyond a limit is counted.
var limitCounters = [usageKinds]counter{countDialLimit, countTCPLimit, countUDPLimit, countClientsLimit, countEchoLimit}

// acquireUse counts one more use of a kind for the container at an inside address, unless that passes its limit or the
// daemon's.
func (f *Forwarder) acquireUse(inside netip.Addr, kind usageKind) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.acquireUseLocked(inside, kind)
}

// acquireUseLocked is acquireUse; the caller holds f.mu.
func (f *Forwarder) acquireUseLocked(inside netip.Addr, kind usageKind) bool {
	if f.closed {
		return false
	}
	u := f.use[inside]
	if f.atLimit(u, kind) {
		f.counters[limitCounters[kind]].Add(1)
		return false
	}
	total := f.cfg.Shared.use[kind].Add(1)
	if limit := f.cfg.Shared.limits.of(kind); limit > 0 && total > int64(limit) {
		f.cfg.Shared.use[kind].Add(-1)
		f.counters[limitCounters[kind]].Add(1)
		return false
	}
	u[kind]++
	f.use[inside] = u
	return true
}

// atLimit says whether a container that uses u may have no more of a kind.
func (f *Forwarder) atLimit(u usage, kind usageKind) bool {
	limit := f.cfg.Limits.of(kind)
	return limit > 0 && u[kind] >= limit
}

// releaseUse takes a use back.
func (f *Forwarder) releaseUse(inside netip.Addr, kind usageKind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.releaseUseLocked(inside, kind)
}

// releaseUseLocked is releaseUse; the caller holds f.mu.
func (f *Forwarder) releaseUseLocked(inside netip.Addr, kind usageKind) {
	f.cfg.Shared.use[kind].Add(-1)
	u := f.use[inside]
	u[kind]--
	if u == (usage{}) {
		delete(f.use, inside)
	} else {
		f.use[inside] = u
	}
}

// kindLimiter counts uses of one kind for a table of mappings.
type kindLimiter struct {
	f    *Forwarder
	kind usageKind
}

var _ mapping.Limiter = kindLimiter{}

// Acquire implements mapping.Limiter.
func (l kindLimiter) Acquire(owner netip.Addr) bool { return l.f.acquireUse(owner, l.kind) }

// Release implements mapping.Limiter.
func (l kindLimiter) Release(owner netip.Addr) { l.f.releaseUse(owner, l.kind) }

// claimMapping is claimDescriptors for the socket of a mapping. Where no descriptor is left, another mapping of the
// container's is given up.
func (f *Forwarder) claimMapping(owner netip.Addr, giveUp func(netip.Addr) bool, fd int) (claim, bool) {
	c, ok := f.claimDescriptors(owner, mappingDescriptors, fd)
	if !ok && giveUp(owner) {
		c, ok = f.claimDescriptors(owner, mappingDescriptors, fd)
	}
	return c, ok
}

// Descriptors that are kept for all but containers' traffic: the API, TAPs, stubs, published ports, agents. An eighth
// of RLIMIT_NOFILE, within bounds: 64 serve an API and a dozen containers, and more than 1024 are of no use.
const (
	minReserve = 64
	maxReserve = 1024
)

// reserveOf is how many of limit descriptors traffic may not use.
func reserveOf(limit int64) int64 { return max(minReserve, min(limit/8, maxReserve)) }

// Descriptors that traffic needs. Pipes are not counted here: those in use raise the numbers of new descriptors.
const (
	connectionDescriptors = 2 // the container's end and the host's
	gatewayDescriptors    = 1 // of a connection that goes by the gateway: the host's end
	mappingDescriptors    = 1 // of datagrams
)

// Buffers are netstack's of one connection, one for each direction, in bytes. They begin at the largest that the
// container's share of memory has room for, and grow with what the connection has moved.
const (
	buffersTight   = 4 << 10   // stack's minimum
	buffersSmall   = 16 << 10  // ten full segments at MTU 1500: RFC 6928's initial window
	buffersUsual   = 64 << 10  // a super-frame
	buffersLarge   = 512 << 10 // of a connection that has moved largeAfter bytes
	buffersLargest = 4 << 20   // of one that has moved largestAfter

	largeAfter   = 256 << 10
	largestAfter = 4 << 20

	// connectionMemory is what a connection through the gateway costs besides its buffers: netstack's endpoint and two
	// goroutines with their stacks, measured as 20 KiB.
	connectionMemory = 20 << 10
)

// streamChunk is how much of a stream is read at once: 45 segments at MTU 1500. Netstack puts at most 65375 bytes into
// one super-frame, and 64 KiB would leave a small second one behind each.
const streamChunk = 45 * 1448

// memoryOf is what a connection with such buffers can hold: both of them full, and what was read for one of them.
func memoryOf(buffers int64) int64 { return connectionMemory + 2*buffers + min(buffers, streamChunk) }

// claim is the part of a container's share that one flow holds. One goroutine uses it at a time.
type claim struct {
	from   *budget.Budget
	client string
	n      int64
}

// release gives it back. Releasing again, or what was never acquired, does nothing.
func (c *claim) release() {
	if c.n > 0 {
		c.from.Release(c.client, c.n)
		c.n = 0
	}
}

// keep gives back what is more than n.
func (c *claim) keep(n int64) {
	if c.n > n {
		c.from.Release(c.client, c.n-n)
		c.n = n
	}
}

// client names the container at an inside address: all its addresses share.
func (f *Forwarder) client(inside netip.Addr) string {
	if f.cfg.Owner != nil {
		if id := f.cfg.Owner(inside); id != "" {
			return id
		}
	}
	return inside.String()
}

// claimDescriptors has the container at an inside address hold n descriptors, of which fd is the one that was opened
// last. A new descriptor gets the lowest number that is free (open(2)), so all below fd are in use, whatever for.
func (f *Forwarder) claimDescriptors(inside netip.Addr, n int64, fd int) (claim, bool) {
	s := f.cfg.Shared
	c := claim{from: s.descriptors, client: f.client(inside), n: n}
	if limit := s.descriptors.Total(); limit > 0 && !s.descriptors.AcquireWithin(c.client, n, limit-int64(fd)) {
		f.counters[countDescriptorLimit].Add(1)
		return claim{}, false
	}
	return c, true
}

// processShort says whether a claim was refused although the container's share has room for n more: the process has
// many descriptors open that belong to no container's share, such as pipes and sockets in pools. That passes.
func (f *Forwarder) processShort(inside netip.Addr, n int64) bool {
	d := f.cfg.Shared.descriptors
	return d.Total() > 0 && d.Allows(f.client(inside), n)
}

// connBuffers are the buffers of one connection through the gateway, accounted to its container.
type connBuffers struct {
	size   atomic.Int64 // of each direction, in bytes
	growAt atomic.Int64 // bytes moved after which they may grow
	in     Conn

	account struct {
		sync.Mutex
		claim
	}
}

// claimBuffers has the container at an inside address hold the memory of one more connection.
func (f *Forwarder) claimBuffers(inside netip.Addr) (*connBuffers, bool) {
	m, client := f.cfg.Shared.memory, f.client(inside)
	for _, try := range []struct{ size, parts int64 }{{buffersUsual, 4}, {buffersSmall, 2}, {buffersTight, 1}} {
		n := memoryOf(try.size)
		if !m.AcquireUpTo(client, n, try.parts) {
			continue
		}
		b := &connBuffers{}
		b.account.claim = claim{from: m, client: client, n: n}
		b.size.Store(try.size)
		b.growAt.Store(largeAfter)
		return b, true
	}
	f.counters[countMemoryLimit].Add(1)
	return nil, false
}

// use makes them those of a connection.
func (b *connBuffers) use(in Conn) {
	b.in = in
	in.SetBuffers(int(b.size.Load()))
}

// release is the end of the connection.
func (b *connBuffers) release() {
	b.account.Lock()
	defer b.account.Unlock()
	b.account.release()
}

// Moved implements relay.Buffers: it lets the buffers grow.
func (b *connBuffers) Moved(n uint64) {
	if int64(n) >= b.growAt.Load() {
		b.grow(int64(n))
	}
}

// grow makes the buffers as large as suits a connection that has moved n bytes. Where the container's share has no room
// for that, it is tried again once twice as much was moved.
func (b *connBuffers) grow(n int64) {
	b.account.Lock()
	defer b.account.Unlock()
	if n < b.growAt.Load() {
		return // the other direction was faster
	}
	size, next := int64(buffersLarge), int64(largestAfter)
	if n >= largestAfter {
		size, next = buffersLargest, math.MaxInt64
	}
	if more := memoryOf(size) - b.account.n; more > 0 {
		if !b.account.from.AcquireUpTo(b.account.client, more, 2) {
			b.growAt.Store(2 * n)
			return
		}
		b.account.n += more
		b.size.Store(size)
		b.in.SetBuffers(int(size))
	}
	b.growAt.Store(next)
}

// Chunk implements relay.Buffers.
func (b *connBuffers) Chunk() int { return int(min(b.size.Load(), streamChunk)) }

// Budgets are how descriptors and memory are divided among containers, in numbers.
type Budgets struct {
	Descriptors        int64 // RLIMIT_NOFILE, less the reserve
	DescriptorsReserve int64 // kept for the API, agents and ports
	DescriptorsUsed    int64 // by containers' traffic
	Memory             int64 // for buffers of connections through gateways, in bytes; 0: no limit
	MemoryPerContainer int64
	MemoryUsed         int64 // what is set aside
}

// Budgets returns the numbers as they are.
func (s *Shared) Budgets() Budgets {
	b := Budgets{
		Descriptors:        s.descriptors.Total(),
		DescriptorsUsed:    s.descriptors.Used(),
		Memory:             s.memory.Total(),
		MemoryPerContainer: s.memory.PerClient(),
		MemoryUsed:         s.memory.Used(),
	}
	if limit := int64(sockio.FileLimit()); limit > 0 {
		b.DescriptorsReserve = reserveOf(limit)
	}
	return b
}

// newDescriptors is the budget of this process's descriptors. No client has a limit but what leaves room for others.
func newDescriptors() *budget.Budget {
	limit := int64(min(sockio.FileLimit(), 1<<31))
	if limit <= 0 {
		return budget.New(0, 0)
	}
	return budget.New(0, max(1, limit-reserveOf(limit)))
}

// maxIdlePipes is how many pipes wait for the next flow that splices.
const maxIdlePipes = 64

// pipeFits says whether a pipe, of which fd was opened last, may be used. Pipes may use half of the reserve as well, as
// established connections come before new ones. Without a pipe a connection's bytes are copied.
func pipeFits(fd int) bool {
	limit := int64(min(sockio.FileLimit(), 1<<31))
	return limit <= 0 || int64(fd) < limit-reserveOf(limit)/2
}
