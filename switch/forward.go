package vswitch

import (
	"maps"

	"github.com/usernet/usernet/internal/faults"
)

// maxLearned bounds the MACs behind a port without guard: a nested bridge of a few dozen containers or VMs.
const maxLearned = 64

// reservedGroup is 01-80-C2-00-00-00 to -0F, which no bridge forwards (IEEE 802.1D table 7-10).
const reservedGroup macKey = 0x0180c2000000

// Receive takes a frame that came from the port's device and writes it to the devices it is for. When it returns,
// the frame's payload may be gone (Frame.Take) and the frame may be filled anew.
func (p *Port) Receive(f *Frame) {
	if p.closed.Load() {
		return
	}
	if faults.Enabled {
		faults.Check(faults.Frame, f.firstPiece())
	}
	r := p.rules.Load()
	p.in.add(f.Len())
	t := p.sw.table.Load()
	if !r.cfg.Trusted {
		if why := p.check(t, r, f); why != passed {
			p.drops[why].Add(1)
			return
		}
	}
	dst := f.dst()
	if dst&groupBit != 0 {
		p.flood(t.ports, r, f)
		return
	}
	q := t.byMAC[dst]
	if q == nil {
		if q = learnedAt(t, dst); q == nil {
			p.unknown(t, r, f)
			return
		}
	}
	switch {
	case q == p: // the device sent to itself: a nested bridge forwards inside
	case !p.mayReach(r, q, f):
		p.drops[DropIsolated].Add(1)
	default:
		f.shared = false
		q.write(f)
	}
}

// Flush is called by a reader of frames with More set, once no more are there to be read.
func (p *Port) Flush() {
	for _, f := range p.sw.table.Load().flush {
		f.Flush()
	}
}

// check is all that a frame of an untrusted port must pass.
func (p *Port) check(t *table, r *rules, f *Frame) Reason {
	src := f.src()
	switch {
	case !f.virtioOK():
		return DropVirtio
	case p.oversize(f):
		return DropOversize
	case src&groupBit != 0:
		return DropMulticast
	case f.dst()&^0xf == reservedGroup:
		return DropReserved
	case r.cfg.Guard:
		return p.guard(r, f)
	}
	if !wellFormed(f) {
		return DropMalformed
	}
	if src == r.mac {
		return passed
	}
	if q := t.byMAC[src]; q != nil { // belongs to another port, which nobody takes over
		return DropMAC
	}
	if _, known := (*p.learned.Load())[src]; !known {
		p.learn(t, src)
	}
	return passed
}

// oversize says whether a frame, or each segment of a super-frame, exceeds the network's MTU.
func (p *Port) oversize(f *Frame) bool {
	n := f.PayloadLen()
	if n <= p.sw.cfg.MTU {
		return false
	}
	if t := f.EtherType(); n <= p.sw.cfg.MTU+8 && (t == etherTypeVLAN || t == etherTypeQinQ) {
		return false // up to two tags, which the MTU does not count
	}
	v := f.Virtio()
	if v.GSO == GSONone {
		return true
	}
	h, ok := f.superFrame(v)
	return !ok || h.headerLen+int(v.GSOSize) > p.sw.cfg.MTU || n > MaxPayload-1
}

// learn notes a MAC behind a port without guard, and that it is behind no other. A full table keeps what it has: the
// frame still passes, and answers to it are flooded to the ports without guard.
func (p *Port) learn(t *table, mac macKey) {
	if len(*p.learned.Load()) >= maxLearned {
		return
	}
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if len(*p.learned.Load()) >= maxLearned || p.closed.Load() {
		return
	}
	for _, q := range t.open {
		old := *q.learned.Load()
		_, has := old[mac]
		if has == (q == p) {
			continue
		}
		next := maps.Clone(old)
		if q == p {
			next[mac] = struct{}{}
		} else {
			delete(next, mac)
		}
		q.learned.Store(&next)
	}
}

// learnedAt finds the port behind which a MAC was seen.
func learnedAt(t *table, mac macKey) *Port {
	for _, q := range t.open {
		if _, ok := (*q.learned.Load())[mac]; ok {
			return q
		}
	}
	return nil
}

// unknown handles a frame to a MAC that no port is known to have: only ports without guard could have it.
func (p *Port) unknown(t *table, r *rules, f *Frame) {
	if len(t.open) == 0 || len(t.open) == 1 && t.open[0] == p {
		p.drops[DropUnknown].Add(1)
		return
	}
	p.flood(t.open, r, f)
}

// flood writes a frame to all given ports but its own.
func (p *Port) flood(ports []*Port, r *rules, f *Frame) {
	if !r.cfg.Trusted && !p.mayFlood(len(ports)) {
		p.drops[DropRate].Add(1)
		return
	}
	f.shared = true
	for _, q := range ports {
		if q != p && p.mayReach(r, q, f) {
			q.write(f)
		}
	}
}

// mayReach is the rule of isolated ports: they talk to trusted ones, and to each other as links allow.
func (p *Port) mayReach(r *rules, q *Port, f *Frame) bool {
	rq := q.rules.Load()
	return !r.cfg.Isolated && !rq.cfg.Isolated || r.cfg.Trusted || rq.cfg.Trusted || p.linked(r, q, rq, f)
}

// write hands a frame to the port's device.
func (p *Port) write(f *Frame) {
	n := f.Len() // before the device takes the payload
	if err := p.dev.WriteFrame(f); err != nil {
		p.drops[DropDevice].Add(1)
		return
	}
	p.out.add(n)
}
