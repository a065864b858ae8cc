package uplink

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/usernet/usernet/internal/rate"
	"github.com/usernet/usernet/overlay/uplink/routers"
	vswitch "github.com/usernet/usernet/switch"
)

// ErrNoRouter is for a link on which nobody advertises a prefix.
var ErrNoRouter = errors.New("no router advertises an IPv6 prefix")

// How often routers are asked (RFC 4861 section 10: MAX_RTR_SOLICITATIONS), and how long they may take: they wait for
// half a second at random (MAX_RA_DELAY_TIME), and three seconds after an earlier answer to all
// (MIN_DELAY_BETWEEN_RAS).
const (
	solicitations = 3
	solicitWait   = 1500 * time.Millisecond
)

// Solicit returns what the routers of a place announce, and asks them in the name of mac where that is not known.
func (s *Set) Solicit(ctx context.Context, at Config, mac net.HardwareAddr) (routers.View, error) {
	d, err := s.use(at.Device)
	if err != nil {
		return routers.View{}, err
	}
	defer s.release(d)
	return d.solicit(ctx, at.VLAN, mac)
}

func (d *device) solicit(ctx context.Context, vlan uint16, mac net.HardwareAddr) (routers.View, error) {
	t := d.table(vlan)
	tick := time.NewTicker(solicitWait)
	defer tick.Stop()
	for range solicitations {
		v, changed := t.View(time.Now())
		if len(v.Prefixes) > 0 {
			return v, nil
		}
		err := d.transmit(vlan, mac, wire{vswitch.EtherTypeIPv6, routers.AllRoutersMAC, routers.Solicitation()})
		if err != nil {
			return v, err
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return v, errors.Join(ErrNoRouter, ctx.Err())
		}
	}
	if v, _ := t.View(time.Now()); len(v.Prefixes) > 0 {
		return v, nil
	}
	return routers.View{}, ErrNoRouter
}

// Routers is what is known of the routers of a place.
func (s *Set) Routers(at Config) routers.View {
	s.mu.Lock()
	d := s.devices[at.Device]
	s.mu.Unlock()
	if d == nil {
		return routers.View{}
	}
	v, _ := d.table(at.VLAN).View(time.Now())
	return v
}

// followRouters tells what the VLAN's routers announce, until the link ends. It asks them at first.
func (l *Link) followRouters(tell func(routers.View)) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l.follow.Go(func() {
		select {
		case <-l.stopped:
			cancel()
		case <-ctx.Done():
		}
	})
	gateway := l.engine.GatewayMAC()
	_, _ = l.device.solicit(ctx, l.vlan, gateway) // where nobody answers, routers advertise by themselves
	followTable(l.device.table(l.vlan), l.stopped, tellEvery, tell)
}

// tellEvery is how often it is told what routers announce, on average, where that changes all the time: routers leave
// three seconds between two advertisements (RFC 4861 section 10, MIN_DELAY_BETWEEN_RAS), and any station there may
// send others. Each time is work for all containers there, and a line of the log. tellAtOnce is how often in a row.
const (
	tellEvery  = 3 * time.Second
	tellAtOnce = 5
)

// followTable tells what a table has, each time that it is something else, until stopped is closed.
func followTable(t *routers.Table, stopped <-chan struct{}, every time.Duration, tell func(routers.View)) {
	pace := rate.Bucket{PerSecond: 1 / every.Seconds(), Burst: tellAtOnce}
	var last routers.View
	for {
		now := time.Now()
		v, changed := t.View(now)
		wait := time.Hour
		if !v.Until.IsZero() {
			wait = time.Until(v.Until) + time.Millisecond
		}
		if !v.Equal(&last) {
			if pace.Allow(now, 1) {
				last = v
				tell(v)
			} else {
				wait, changed = every, nil // what it is then counts
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-stopped:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}
