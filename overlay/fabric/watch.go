package fabric

import (
	"net/netip"
	"time"
)

// watch looks after the peers until the fabric is closed.
func (f *Fabric) watch() {
	timer := time.NewTicker(tick)
	defer timer.Stop()
	for n, settled := 0, false; ; n++ {
		select {
		case <-f.stop:
			return
		case <-f.woken:
		case <-timer.C:
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
			}
			p.sendHeld(now)
			settled = settled && p.isAlive(now) && p.via.Load() == nil && p.carrier.Load() == nil
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
		at, err := netip.ParseAddrPort(sessions[*k].Endpoint)
		if err == nil {
			p.setAddr(at)
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
