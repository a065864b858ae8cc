package fabric

import (
	"time"
)

// watch looks after the peers until the fabric is closed.
func (f *Fabric) watch() {
	timer := time.NewTicker(tick)
	defer timer.Stop()
	sizes := time.NewTimer(tick) // when the path's MTU to a peer is to be looked at before the next tick
	defer sizes.Stop()
	for n, settled := 0, false; ; n++ {
		select {
		case <-f.stop:
			return
		case <-f.woken:
		case <-timer.C:
		case <-sizes.C:
			n--
			f.searchMTUs(sizes)
			continue
		}
		f.tidyCarriers(time.Now())
		hosts := f.state.Load().byHost
		if len(hosts) > 0 && (!settled || n%int(probeEvery/tick) == 0) {
			f.followSessions()
		}
		settled = !f.hasStrangers()
		for _, p := range hosts {
			if p.dest.Load() == nil || f.cfg.Devices {
				continue
			}
			now := time.Now()
			if p.round(now) {
				p.tryOtherWays()
			} else if p.preferIsDue(now) {
				p.tryPreferred()
			}
			p.sendHeld(now)
			settled = settled && p.isAlive(now) && p.via.Load() == nil && p.carrier.Load() == nil &&
				!p.hasShaken(now)
		}
		f.searchMTUs(sizes)
		if n%int(foreignEvery/tick) == 0 {
			f.refreshForeign()
		}
	}
}

// searchMTUs probes how large packets to the hosts may be, and has timer run out when that is to be done again.
func (f *Fabric) searchMTUs(timer *time.Timer) {
	if f.cfg.Devices {
		return
	}
	var next time.Time
	for _, p := range f.state.Load().byHost {
		if again := p.searchMTU(time.Now()); !again.IsZero() && (next.IsZero() || again.Before(next)) {
			next = again
		}
	}
	if !next.IsZero() {
		timer.Reset(time.Until(next))
	}
}

// foreignEvery is how often the kernel is asked for the paths' MTUs to VXLAN devices of others, which answer no probes:
// it forgets what ICMP said after ten minutes (net.ipv4.route.mtu_expires).
const foreignEvery = 10 * time.Second

// refreshForeign takes what the kernel knows of the ways to VXLAN devices of others.
func (f *Fabric) refreshForeign() {
	st := f.state.Load()
	for _, p := range st.byIP {
		p.refreshMTU()
	}
	if f.cfg.Devices {
		for _, p := range st.byHost {
			p.refreshMTU()
		}
	}
}

// wake has the peers looked after now.
func (f *Fabric) wake() {
	select {
	case f.woken <- struct{}{}:
	default:
	}
}

// followSessions has plain datagrams and sizes follow where WireGuard last heard each host: an authenticated address.
func (f *Fabric) followSessions() {
	t := f.tunnel.Load()
	if t == nil {
		return
	}
	sessions, err := t.Sessions()
	if err != nil {
		f.log.Debug("sessions of WireGuard", "error", err)
		return
	}
	hosts := f.state.Load().byHost
	for _, p := range hosts {
		k := p.key.Load()
		if k == nil || p.dest.Load() == nil {
			continue
		}
		if at, from, ok := parseEndpoint(sessions[*k].Endpoint); ok {
			p.setAddr(at, from)
			f.listenTo(p, at)
			p.via.Store(nil)
			p.leaveCarrier()
		} else if c := f.carrierOf(sessions[*k].Endpoint); c != nil {
			p.adoptCarrier(c)
		} else if via, ok := parseRelay(sessions[*k].Endpoint); ok {
			p.via.Store(hosts[via])
			p.carrier.Store(nil)
		}
	}
}
