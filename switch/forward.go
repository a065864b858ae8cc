package vswitch

import "github.com/usernet/usernet/internal/faults"

// reservedGroup is 01-80-C2-00-00-00 to -0F, which no bridge forwards (IEEE 802.1D table 7-10).
const reservedGroup macKey = 0x0180c2000000

// Receive takes a frame that came from the port's device and writes it to the devices it is for. When it returns,
// the frame's payload may be gone (Frame.StealPayload) and the frame may be filled anew.
func (p *Port) Receive(f *Frame) {
	if p.closed.Load() {
		return
	}
	if faults.Enabled {
		faults.Check(faults.Frame, f.firstPiece())
	}
	if m := p.sw.mirror.Load(); m != nil {
		m.show(p, true, f)
	}
	r := p.state.Load()
	p.in.add(f.Len())
	t := p.sw.table.Load()
	if r.cfg.Role != Gateway {
		if why := p.check(t, r, f); why != verdictPass {
			p.drops[why].Add(1)
			return
		}
	}
	if r.cfg.Answer != nil && r.cfg.Answer(f) {
		return
	}
	if r.cfg.Filter != nil && !r.cfg.Filter(f) {
		p.drops[DropFilter].Add(1)
		return
	}
	dst := f.dst()
	policy := p.sw.policy.Load()
	if r.cfg.Role == Gateway {
		policy = nil
	}
	if dst&groupBit != 0 {
		if policy != nil && !(*policy)(f) {
			p.drops[DropPolicy].Add(1)
			return
		}
		p.flood(t.ports, r, f)
		return
	}
	q := t.find(p.sw, r, dst)
	if policy != nil && (q == nil || q.state.Load().cfg.Role != Gateway) && !(*policy)(f) {
		p.drops[DropPolicy].Add(1)
		return
	}
	if q == nil {
		p.unknown(t, r, f)
		return
	}
	if q == p {
		return // the device sent to itself: a nested bridge forwards inside
	}
	switch why := p.apart(r, q, f); why {
	default:
		p.drops[why].Add(1)
	case verdictPass:
		f.shared = false
		if f.MorePending && f.to != q {
			f.to, f.several = q, f.to != nil
		}
		q.write(f)
	}
}

// Judge says what Receive would do with a frame to one station, and does nothing: which port gets it, or why none does.
func (p *Port) Judge(f *Frame) (to *Port, why Reason, ok bool) {
	r, t := p.state.Load(), p.sw.table.Load()
	if r.cfg.Role != Gateway {
		if why := p.check(t, r, f); why != verdictPass {
			return nil, why, false
		}
	}
	if r.cfg.Filter != nil && !r.cfg.Filter(f) {
		return nil, DropFilter, false
	}
	q := t.find(p.sw, r, f.dst())
	if q == nil {
		return nil, DropUnknown, false
	}
	if q != p {
		if why := p.apart(r, q, f); why != verdictPass {
			return nil, why, false
		}
	}
	return q, 0, true
}

// Flush is called by a reader of frames with MorePending set, once no more are there to be read.
func (p *Port) Flush() {
	for _, f := range p.sw.table.Load().flush {
		f.Flush()
	}
}

// check is all that a frame must pass that is not the gateway's.
func (p *Port) check(t *table, r *portState, f *Frame) Reason {
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
	case r.cfg.Role == Guest:
		return p.guard(r, f)
	}
	if !wellFormed(f) {
		return DropMalformed
	}
	if src != r.mac && !p.sawSource(t, r, src) {
		return DropMAC
	}
	return verdictPass
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
	return !ok || h.Payload+int(v.GSOSize) > p.sw.cfg.MTU || n > MaxPayload-1
}

// unknown handles a frame to a MAC that no port is known to have: only ports that learn could have it.
func (p *Port) unknown(t *table, r *portState, f *Frame) {
	if len(t.learning) == 0 || len(t.learning) == 1 && t.learning[0] == p {
		p.drops[DropUnknown].Add(1)
		return
	}
	p.flood(t.learning, r, f)
}

// flood writes a frame to all given ports but its own, and those of its flood group.
func (p *Port) flood(ports []*Port, r *portState, f *Frame) {
	if r.cfg.Role != Gateway && !p.mayFlood(len(ports)) {
		p.drops[DropRate].Add(1)
		return
	}
	f.shared, f.several = true, true
	for _, q := range ports {
		if q != p && !r.sameGroup(q) && p.apart(r, q, f) == verdictPass {
			q.write(f)
		}
	}
}

// sameGroup says whether q is in the same flood group: what came from one tunnel is not for another, as all that are
// behind them have it from its sender (split horizon, RFC 4762, section 4.4).
func (r *portState) sameGroup(q *Port) bool {
	return r.cfg.FloodGroup != 0 && r.cfg.FloodGroup == q.state.Load().cfg.FloodGroup
}

// sameVLAN says whether q is in the same VLAN; the gateway is in all of them.
func (r *portState) sameVLAN(q *Port) bool {
	rq := q.state.Load()
	return r.cfg.VLAN == rq.cfg.VLAN || r.cfg.Role == Gateway || rq.cfg.Role == Gateway
}

// apart says why a frame does not go to q; verdictPass: it goes. Isolated ports talk to the gateway, and to each other
// as links allow. A physical network and the gateway do not reach each other: nobody there is let out by it, and it is
// no station of theirs. VLANs reach the gateway alone.
func (p *Port) apart(r *portState, q *Port, f *Frame) Reason {
	rq := q.state.Load()
	switch {
	case r.cfg.Role == Uplink && rq.cfg.Role == Gateway, r.cfg.Role == Gateway && rq.cfg.Role == Uplink:
		return DropIsolated
	case !r.sameVLAN(q):
		return DropOtherVLAN
	case !r.cfg.Isolated && !rq.cfg.Isolated, r.cfg.Role == Gateway, rq.cfg.Role == Gateway, p.linked(r, q, rq, f):
		return verdictPass
	}
	return DropIsolated
}

// write hands a frame to the port's device.
func (p *Port) write(f *Frame) {
	if m := p.sw.mirror.Load(); m != nil {
		m.show(p, false, f)
	}
	n := f.Len() // before the device takes the payload
	if err := p.dev.WriteFrame(f); err != nil {
		p.drops[DropDevice].Add(1)
		return
	}
	p.out.add(n)
}
