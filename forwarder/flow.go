package forwarder

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/relay"
)

// flow is one TCP connection from or to a container: its ends, what it is counted for, and once both ends are connected
// the session that relays it.
type flow struct {
	f               *Forwarder
	direction       string
	inside, outside netip.AddrPort
	seq             uint32         // of the container's SYN, where direction is "out" and the flow is not resumed
	resumed         bool           // it has been another daemon's
	outlived        *time.Timer    // aborts it, since its container knows it no more; guarded by f.mu
	hostSide        netip.AddrPort // guarded by relayed where it is not known from the start
	created         time.Time
	path            string // PathSockets, or "": it is what relayed says
	tracked         bool   // Close waits for it; guarded by f.mu
	descriptors     claim
	memory          claim // of a stream

	relayed struct {
		sync.Mutex
		session *relay.Session // nil: it has not both its ends yet
		bypass  bool           // the container's end is a socket of its own network namespace
		aborted bool
	}
}

// errTooMany refuses a flow whose container has too many, or which comes when the forwarder ends.
var errTooMany = errors.New("too many connections")

// addFlow counts and lists a flow. An error is errTooMany, EMFILE where no share of the descriptors is left for the
// container, of which fd was opened last, or ENFILE where the process has none for the moment. Each flow that was added
// is removed with removeFlow, whatever became of it.
func (f *Forwarder) addFlow(fl *flow, fd int) error {
	fl.created = time.Now()
	c, ok := f.claimDescriptors(fl.inside.Addr(), connectionDescriptors, fd)
	switch {
	case !ok && f.processShort(fl.inside.Addr(), connectionDescriptors):
		return unix.ENFILE
	case !ok:
		return unix.EMFILE
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.detached || !f.acquireUseLocked(fl.inside.Addr(), useTCP) {
		c.release()
		return errTooMany
	}
	fl.descriptors = c
	f.flows.add(fl)
	f.ends[fl.key()] = append(f.ends[fl.key()], fl)
	return nil
}

// flowTable has flows, by the container's address.
type flowTable map[netip.Addr]map[*flow]struct{}

func (t flowTable) add(fl *flow) {
	a := fl.inside.Addr()
	if t[a] == nil {
		t[a] = map[*flow]struct{}{}
	}
	t[a][fl] = struct{}{}
}

func (t flowTable) remove(fl *flow) {
	a := fl.inside.Addr()
	if delete(t[a], fl); len(t[a]) == 0 {
		delete(t, a)
	}
}

func (t flowTable) all() (list []*flow) {
	for _, own := range t {
		list = slices.AppendSeq(list, maps.Keys(own))
	}
	return list
}

// key is what tells a flow from others of its network.
func (fl *flow) key() flowKey { return flowKey{fl.inside, fl.outside} }

type flowKey struct{ inside, outside netip.AddrPort }

// tailTime is what a container that has taken a port anew leaves to what it sent before. It sends its SYN again after
// a second (RFC 6298, 2.1), and is to be answered then.
const tailTime = 500 * time.Millisecond

// has says whether there is a flow already between the two that a SYN is between. Such a SYN is to be dropped. It may
// be one that was sent again after it had been answered. If it is another one, by its sequence number, the container
// knows nothing of the flow any more: it has ended its half, and has taken the port anew. A kernel at the flow's end
// would send an acknowledgement, which the container resets, and take the SYN when it comes again (RFC 9293, 3.10.7.4;
// RFC 5961, 4). So the flow is reset here, once what the container had sent may have gone its way. The SYN comes from
// the container's own port of the switch: nobody else resets the flow so.
func (f *Forwarder) has(k flowKey, seq uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fl := range f.ends[k] {
		if (fl.direction != "out" || fl.resumed || fl.seq != seq) && fl.outlived == nil {
			fl.outlived = time.AfterFunc(tailTime, fl.abort)
		}
	}
	return len(f.ends[k]) > 0
}

// trackFlow makes Close wait for a flow, which has both its ends from here on. Close does not wait for flows that are
// being dialled: netstack may take a minute to give up.
func (f *Forwarder) trackFlow(fl *flow) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	fl.tracked = true
	f.wg.Add(1)
	return true
}

// removeFlow takes a flow out of the list, and gives back what it was counted for.
func (f *Forwarder) removeFlow(fl *flow) {
	f.mu.Lock()
	f.flows.remove(fl)
	k := fl.key()
	f.ends[k] = slices.DeleteFunc(f.ends[k], func(o *flow) bool { return o == fl })
	if len(f.ends[k]) == 0 {
		delete(f.ends, k)
	}
	if fl.outlived != nil {
		fl.outlived.Stop()
	}
	f.releaseUseLocked(fl.inside.Addr(), useTCP)
	fl.descriptors.release()
	fl.memory.release()
	tracked := fl.tracked
	f.mu.Unlock()
	if tracked {
		f.wg.Done()
	}
}

// relay relays a flow between two sockets, which it owns from here on, until both halves have ended.
func (fl *flow) relay(inside, host int) {
	f := fl.f
	if !f.trackFlow(fl) {
		_ = unix.Close(inside) // which resets them (sockio.SetTCP)
		_ = unix.Close(host)
		f.removeFlow(fl)
		return
	}
	fl.setSession(f.loop.Relay(inside, host, fl.options()), true)
}

// relayConn relays a flow between the gateway's end and a socket, both of which it owns from here on, until both halves
// have ended.
func (fl *flow) relayConn(in Conn, host int, memory *connBuffers) {
	f := fl.f
	fl.descriptors.keep(gatewayDescriptors)
	if !f.trackFlow(fl) {
		in.Abort()
		_ = in.Close()
		_ = unix.Close(host)
		memory.release()
		f.removeFlow(fl)
		return
	}
	memory.use(in)
	o := relay.ConnOptions{Options: fl.options(), Buffers: memory}
	o.OnEnd = func() {
		memory.release()
		f.removeFlow(fl)
	}
	fl.setSession(f.loop.RelayConn(in, host, o), false)
}

func (fl *flow) options() relay.Options {
	return relay.Options{
		OnEnd: func() { fl.f.removeFlow(fl) },
		Log:   []any{"inside", fl.inside, "outside", fl.outside},
	}
}

// setSession says what relays the flow. One that was aborted before is so now.
func (fl *flow) setSession(s *relay.Session, bypass bool) {
	fl.relayed.Lock()
	fl.relayed.session, fl.relayed.bypass = s, bypass
	aborted := fl.relayed.aborted
	fl.relayed.Unlock()
	if aborted {
		s.Abort()
	}
}

// session returns what relays the flow, nil while it has not both its ends, and whether that bypasses the gateway.
func (fl *flow) session() (s *relay.Session, bypass bool) {
	fl.relayed.Lock()
	defer fl.relayed.Unlock()
	return fl.relayed.session, fl.relayed.bypass
}

// setHostSide says which address and port of the host it has, where that was not known when it was listed.
func (fl *flow) setHostSide(a netip.AddrPort) {
	fl.relayed.Lock()
	defer fl.relayed.Unlock()
	fl.hostSide = a
}

func (fl *flow) getHostSide() netip.AddrPort {
	fl.relayed.Lock()
	defer fl.relayed.Unlock()
	return fl.hostSide
}

// abort resets both ends: a reset on one side is passed on to the other. It does not block.
func (fl *flow) abort() {
	fl.relayed.Lock()
	fl.relayed.aborted = true
	s := fl.relayed.session
	fl.relayed.Unlock()
	if s != nil {
		s.Abort()
	}
}

// list is the flow as Flows lists it.
func (fl *flow) list() Flow {
	l := Flow{
		Proto:     "tcp",
		Direction: fl.direction,
		State:     "opening",
		Inside:    fl.inside,
		Outside:   fl.outside,
		Path:      PathGateway,
		Created:   fl.created,
	}
	s, bypass := fl.session()
	l.HostSide = fl.getHostSide()
	switch {
	case fl.path != "":
		l.Path = fl.path
	case bypass:
		l.Path = PathBypass
	}
	if s != nil {
		l.BytesIn, l.BytesOut = s.Bytes()
		l.State = "established"
		if s.HalfClosed() {
			l.State = "closing"
		}
	}
	return l
}
