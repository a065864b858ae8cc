package forwarder

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usernet/usernet/internal/sockio"
)

// flow is one TCP connection from or to a container. Its two halves are copied in one of three ways: between netstack and a
// host socket by two goroutines, between two host sockets by the reactor (pair), or once there is much to copy, spliced by two
// goroutines.
type flow struct {
	f                         *Forwarder
	direction                 string
	inside, outside, hostSide netip.AddrPort
	created                   time.Time
	waited                    bool // Close waits for it; guarded by f.mu
	bytesIn, bytesOut         atomic.Uint64
	halfClosed                atomic.Bool
	descriptors               claim
	memory                    *connBuffers // of netstack's end; nil where there is none

	mu      sync.Mutex
	aborted bool
	pair    *pair        // both ends, while the reactor copies
	in      Conn         // the container's end at the gateway
	direct  *sockio.Conn // or in the container's own network namespace
	host    *sockio.Conn

	over     bool         // the splicing goroutines have ended
	stopping bool         // they were told to end, so that another process can go on
	left     chan [2]Half // the state that they end with then, or noState
}

// addFlow counts and lists a flow. False: its container has too many, or no share of the descriptors is left for it, of which fd
// was opened last, or the forwarder ends. Each flow that was added is removed with removeFlow, whatever became of it.
func (f *Forwarder) addFlow(fl *flow, fd int) bool {
	fl.created = time.Now()
	c, ok := f.claimDescriptors(fl.inside.Addr(), connectionDescriptors, fd)
	if !ok {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.released || !f.acquireUseLocked(fl.inside.Addr(), useTCP) {
		c.release()
		return false
	}
	fl.descriptors = c
	f.flows[fl] = struct{}{}
	f.ends[fl.key()]++
	return true
}

// key is what tells a flow from others of its network.
func (fl *flow) key() flowKey { return flowKey{fl.inside, fl.outside} }

type flowKey struct{ inside, outside netip.AddrPort }

// has says whether there is a flow already between these two.
func (f *Forwarder) has(k flowKey) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ends[k] > 0
}

// trackFlow makes Close wait for a flow, which has both its ends from here on. Close does not wait for flows that are being
// dialled: netstack may take a minute to give up.
func (f *Forwarder) trackFlow(fl *flow) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	fl.waited = true
	f.wg.Add(1)
	return true
}

// removeFlow takes a flow out of the list, and gives back what it was counted for.
func (f *Forwarder) removeFlow(fl *flow) {
	f.mu.Lock()
	delete(f.flows, fl)
	k := fl.key()
	if f.ends[k]--; f.ends[k] <= 0 {
		delete(f.ends, k)
	}
	f.releaseUseLocked(fl.inside.Addr(), useTCP)
	fl.descriptors.release()
	waited := fl.waited
	f.mu.Unlock()
	if waited {
		f.wg.Done()
	}
}

// setEnds stores a flow's ends. False: the flow was aborted before it had them, and they are the caller's to close.
func (fl *flow) setEnds(ends func()) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if !fl.aborted {
		ends()
	}
	return !fl.aborted
}

// path returns Flow.Path and Flow.State.
func (fl *flow) path() (path, state string) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	path, state = "gateway", "established"
	if fl.pair != nil || fl.direct != nil {
		path = "bypass"
	} else if fl.in == nil {
		state = "opening"
	}
	if fl.halfClosed.Load() {
		state = "closing"
	}
	return path, state
}

// abort resets both ends: a reset on one side is one on the other. It waits for nobody: the goroutines of a flow, which are
// interrupted, close its sockets.
func (fl *flow) abort() {
	fl.mu.Lock()
	p, in := fl.pair, fl.in
	again := fl.aborted
	fl.aborted = true
	sockets := [2]*sockio.Conn{fl.direct, fl.host}
	fl.mu.Unlock()
	if again {
		return
	}
	for _, c := range sockets {
		if c != nil {
			c.Interrupt()
		}
	}
	if in != nil {
		in.Abort()
	}
	if p != nil {
		p.end(false)
	}
}

func (fl *flow) wasAborted() bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.aborted
}
