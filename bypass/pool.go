package bypass

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Direction says who opens a connection.
type Direction int

// The directions.
const (
	Inbound  Direction = iota // a client outside: published ports
	Outbound                  // the container
	Datagram                  // a client outside, by UDP
	directions
)

func (d Direction) String() string { return [...]string{"inbound", "outbound", "datagram"}[d] }

// kind is a direction and an address family. Sockets of one kind are interchangeable.
type kind int

const kinds = 2 * int(directions)

func kindOf(d Direction, ipv6 bool) kind {
	if ipv6 {
		return kind(2*d + 1)
	}
	return kind(2 * d)
}

func (k kind) direction() Direction { return Direction(k / 2) }
func (k kind) ipv6() bool           { return k%2 == 1 }

// Sizes and times of a pool.
const (
	batchSize     = 64               // sockets made at once; half of it left is little
	largeBatch    = 240              // the same once they were used up: what one message can carry (SCM_MAX_FD, 253)
	idleSize      = 16               // how many of each kind an idle pool has
	lowMark       = 4                // an idle pool with fewer starts a factory: not for each connection now and then
	idleTimeout   = 5 * time.Second  // how long the factory waits for more to do
	retryAfter    = 30 * time.Second // when to try again after something went wrong
	refusedFor    = 10 * time.Minute // and where the sandbox's kernel lacks what is needed
	givesWayFor   = 24 * time.Hour   // and where rules of the container's are in the way, unless they change before
	maxUnanswered = 10               // doublings of retryAfter: to eight hours, since each try may cost a connection
)

// firstWait is how long a connection waits for the first sockets: a factory enters its sandbox in some 20 ms.
const firstWait = 200 * time.Millisecond

// ErrNoSocket says that the pool is empty. A factory may be filling it.
var ErrNoSocket = errors.New("no socket of the sandbox at hand")

// ErrContainerRules says that a container has packet filters or queues of its own that a connection past its TAPs would
// not meet. The bypass gives way to them.
var ErrContainerRules = errors.New("the container has rules of its own")

// Factory makes sockets inside one sandbox. A pool calls it from one goroutine at a time.
type Factory interface {
	// Make makes count sockets of a kind, whose descriptors become the caller's, after preparing the sandbox for them.
	// refused is why the sandbox cannot have them; err, why the factory is of no use any more.
	Make(d Direction, ipv6 bool, count int) (fds []int, refused, err error)
	// Watch returns what tells of changes to the sandbox's packet filters from now on; the caller closes it.
	Watch() (Watch, error)
	// Close ends the factory and waits for it.
	Close()
}

// Watch tells of changes to a sandbox's packet filters and queues.
type Watch interface {
	// Changed says whether there were any since it was called last. It does not block.
	Changed() bool
	Close()
}

// Pool has sockets that were made inside a sandbox, ready to be connected.
//
//	          Get, Prefill                     low                   idleTimeout
//	empty ------------------> factory runs <---------> enough left ------------> idle: idleSize of each kind, no factory
//	  ^                            |                                              |  fewer than lowMark: factory runs
//	  |   refused, error, silence  |                                              |
//	  +---- suspended for a while <+----------------------------------------------+
type Pool struct {
	start  func(context.Context) (Factory, error)
	failed func(error)

	mu      sync.Mutex
	free    [kinds][]int
	wanted  [kinds]bool // the kinds that are asked for
	batch   [kinds]int  // how many are made at once; 0 before the first have come
	lastGet time.Time
	wake    chan struct{}
	filling bool
	filled  chan struct{}         // while filling: closed when sockets have come, or none will
	until   [directions]time.Time // until when none are made
	gives   [directions]bool      // it is so since the container's rules are in the way
	watch   Watch                 // nil before the first factory
	renew   bool                  // the next factory has to prepare the sandbox again
	closed  bool

	unanswered unanswered // by the container: outbound

	wg     sync.WaitGroup // the goroutine that fills
	ctx    context.Context
	cancel context.CancelFunc
}

// New returns an empty pool. It calls start for a factory when it needs sockets, not before Prefill or the first Get.
// It calls failed with the reason each time that it gets none.
func New(start func(context.Context) (Factory, error), failed func(error)) *Pool {
	ctx, cancel := context.WithCancel(context.Background())
	return &Pool{start: start, failed: failed, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1)}
}

// Prefill fills the pool with sockets that will be asked for, in the background, so that the first Get finds one.
func (p *Pool) Prefill(d Direction, ipv4, ipv6 bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted[kindOf(d, false)] = p.wanted[kindOf(d, false)] || ipv4
	p.wanted[kindOf(d, true)] = p.wanted[kindOf(d, true)] || ipv6
	p.fill(d)
}

// Get returns the descriptor of an unconnected, non-blocking socket, which becomes the caller's, or ErrNoSocket. Where
// the pool is low, it is filled in the background. For the first sockets of their kind Get waits for firstWait, unless
// ctx ends before; a pool that was used up is not waited for, as the gateway is faster.
func (p *Pool) Get(ctx context.Context, d Direction, ipv6 bool) (int, error) {
	k := kindOf(d, ipv6)
	fd, filled := p.get(k)
	if filled != nil {
		ctx, cancel := context.WithTimeout(ctx, firstWait)
		defer cancel()
		for filled != nil {
			select {
			case <-filled:
				fd, filled = p.get(k)
			case <-ctx.Done():
				return -1, ErrNoSocket
			}
		}
	}
	if fd < 0 {
		return -1, ErrNoSocket
	}
	return fd, nil
}

// Socket is Get for a TCP connection that the container opens to outside (outbound), or one to it from there.
func (p *Pool) Socket(ctx context.Context, outside netip.AddrPort, outbound, ipv6 bool) (fd int, err error) {
	if !outbound {
		return p.Get(ctx, Inbound, ipv6)
	}
	if p.Avoids(outside) {
		return -1, ErrNoSocket
	}
	return p.Get(ctx, Outbound, ipv6)
}

// Refuses says why a connection that the container opens to outside gets no socket; nil: it may get one.
func (p *Pool) Refuses(outside netip.AddrPort) error {
	if p.Avoids(outside) {
		return errors.New("the container has not answered on a socket to this destination before")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watch != nil && p.watch.Changed() {
		p.prepareAgain()
	}
	switch {
	case p.gives[Outbound]:
		return ErrContainerRules
	case !p.works(Outbound):
		return errors.New("no sockets of its namespace can be made for the moment")
	}
	return nil
}

// PrefillInbound is Prefill for TCP connections to the container.
func (p *Pool) PrefillInbound(ipv4, ipv6 bool) { p.Prefill(Inbound, ipv4, ipv6) }

// get returns a socket. Without one it returns what is closed when more have come, or nil: none will.
func (p *Pool) get(k kind) (fd int, filled <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watch != nil && p.watch.Changed() {
		p.prepareAgain()
	}
	p.wanted[k], p.lastGet = true, time.Now()
	n := len(p.free[k])
	if n < lowMark || p.filling && p.isLow(k) {
		p.fill(k.direction())
	}
	if n > 0 {
		fd = p.free[k][n-1]
		p.free[k] = p.free[k][:n-1]
		return fd, nil
	}
	if p.batch[k] > 0 {
		p.batch[k] = largeBatch
	} else if p.filling && p.works(k.direction()) {
		filled = p.filled
	}
	return -1, filled
}

// prepareAgain closes the sockets in the pool and forgets what was decided by the container's rules, which have
// changed: the next factory prepares the sandbox again. The caller holds mu.
func (p *Pool) prepareAgain() {
	p.renew = p.filling
	for d := range directions {
		p.discard(kindOf(d, false))
		p.discard(kindOf(d, true))
		if p.gives[d] {
			p.gives[d], p.until[d] = false, time.Time{}
		}
	}
}

// discard closes the sockets of a kind; the next ones are waited for as the first are. The caller holds mu.
func (p *Pool) discard(k kind) {
	p.shrink(k, 0)
	p.batch[k] = 0
}

// isLow says whether sockets of a kind are to be made by a factory that runs. The caller holds mu.
func (p *Pool) isLow(k kind) bool { return len(p.free[k]) < max(p.batch[k], batchSize)/2 }

// suspend makes no sockets of a direction for a while, and closes those in the pool. The caller holds mu.
func (p *Pool) suspend(d Direction, pause time.Duration) {
	p.until[d], p.gives[d] = time.Now().Add(pause), false
	for _, k := range []kind{kindOf(d, false), kindOf(d, true)} {
		p.discard(k)
		p.wanted[k] = false
	}
}

// shrink closes sockets of a kind until few enough are left. The caller holds mu.
func (p *Pool) shrink(k kind, left int) {
	for _, fd := range p.free[k][min(left, len(p.free[k])):] {
		_ = unix.Close(fd)
	}
	p.free[k] = p.free[k][:min(left, len(p.free[k]))]
}

// works says whether sockets of a direction can be had. The caller holds mu.
func (p *Pool) works(d Direction) bool { return !p.closed && time.Now().After(p.until[d]) }

// fill wakes the factory that runs, or starts one. The caller holds mu.
func (p *Pool) fill(d Direction) {
	switch {
	case !p.works(d):
	case p.filling:
		select {
		case p.wake <- struct{}{}:
		default: // it has been woken already
		}
	default:
		p.filling, p.filled = true, make(chan struct{})
		p.wg.Go(p.run)
	}
}

// Close closes the pool and waits for its factory. Sockets that were taken stay open.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range kind(kinds) {
		p.shrink(k, 0)
	}
	if p.watch != nil {
		p.watch.Close()
		p.watch = nil
	}
}

// run starts a factory and fills the pool until no more is needed for a while.
func (p *Pool) run() {
	err := p.produce()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.filling, p.renew = false, false
	close(p.filled)
	for k := range kind(kinds) {
		p.shrink(k, idleSize)
		p.batch[k] = min(p.batch[k], batchSize)
	}
	if err != nil && p.ctx.Err() == nil {
		p.failed(err)
		for d := range directions {
			p.suspend(d, retryAfter)
		}
	}
}

func (p *Pool) produce() error {
	factory, err := p.start(p.ctx)
	if err != nil {
		return err
	}
	defer factory.Close()
	if err := p.see(factory); err != nil {
		return err
	}
	for {
		k, count, wait := p.low()
		if k < 0 {
			timer := time.NewTimer(wait)
			select {
			case <-p.wake:
				timer.Stop()
				continue
			case <-timer.C:
			case <-p.ctx.Done():
				timer.Stop()
			}
			return nil
		}
		fds, refused, err := factory.Make(k.direction(), k.ipv6(), count)
		if err != nil {
			return err
		}
		p.add(k, fds, refused)
	}
}

// see opens the watch on the sandbox's rules before the first socket is made, so that no change is missed.
func (p *Pool) see(factory Factory) error {
	p.mu.Lock()
	seen := p.watch != nil
	p.mu.Unlock()
	if seen {
		return nil
	}
	w, err := factory.Watch()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = w
	return nil
}

// add puts sockets into the pool, or suspends their direction.
func (p *Pool) add(k kind, fds []int, refused error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free[k], p.batch[k] = append(p.free[k], fds...), max(p.batch[k], batchSize)
	if refused != nil {
		p.failed(refused)
		pause, rules := refusedFor, errors.Is(refused, ErrContainerRules)
		if rules {
			pause = givesWayFor
		}
		p.suspend(k.direction(), pause)
		p.gives[k.direction()] = rules
	}
	close(p.filled)
	p.filled = make(chan struct{})
}

// low returns a kind of which more sockets are needed and how many to make, or -1 and how long the factory is to wait
// for that. Before the first Get it does not wait, since most ports of most containers are not in use.
func (p *Pool) low() (k kind, count int, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range kind(kinds) {
		if p.wanted[k] && p.isLow(k) && p.works(k.direction()) && !p.renew {
			return k, max(p.batch[k], batchSize), 0
		}
	}
	if !p.renew {
		wait = max(0, time.Until(p.lastGet.Add(idleTimeout)))
	}
	return -1, 0, wait
}
