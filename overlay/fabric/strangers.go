package fabric

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/internal/rate"
	"github.com/usernet/usernet/overlay/hostconn"
)

// How many accepted connections may be nobody's yet. Addresses of hosts have a share of their own: each connection of a
// container begins as one of nobody's.
const (
	maxStrangers       = 64
	maxStrangersFromIP = 8
	maxOfHosts         = 1024
	maxFromHost        = 256

	// How many begin in a second, and at once: of all that are from no host's address, and from one address, or one
	// subnet of IPv6. Each may cost a handshake of TLS, some 0.5 ms of a processor.
	strangerRate, strangerBurst             = 200, 400
	strangerRateFromIP, strangerBurstFromIP = 50, 100
	maxStrangerRates                        = 4096 // addresses with a bucket of their own; others share one
	subnetBits                              = 64   // of IPv6: a station may have all addresses of it (RFC 4291, 2.5.1)
)

// stranger is an accepted connection of which it is not known whose it is.
type stranger struct {
	conn   *net.TCPConn
	from   netip.Addr
	ofHost bool // from has a host's share
	began  time.Time
}

// strangers are those that there are. carriers.mu guards them.
type strangers struct {
	all    map[*stranger]struct{}
	from   map[netip.Addr]int
	ofHost int // how many of all count as hosts'

	rates rate.Keyed[netip.Addr, rate.Bucket] // by address, those of IPv6 by their subnet
	total rate.Bucket
}

func newStrangers() strangers {
	return strangers{
		all:  map[*stranger]struct{}{},
		from: map[netip.Addr]int{},
		rates: rate.Keyed[netip.Addr, rate.Bucket]{
			Max: maxStrangerRates,
			New: func() *rate.Bucket {
				return &rate.Bucket{PerSecond: strangerRateFromIP, Burst: strangerBurstFromIP}
			},
			Idle: (*rate.Bucket).Full,
		},
		total: rate.Bucket{PerSecond: strangerRate, Burst: strangerBurst},
	}
}

// mayBegin takes the time of one connection from an address that is no host's.
func (ss *strangers) mayBegin(from netip.Addr, now time.Time) bool {
	return ss.rateOf(from, now).Allow(now, 1) && ss.total.Allow(now, 1)
}

// rateOf is how often connections from an address may begin.
func (ss *strangers) rateOf(from netip.Addr, now time.Time) *rate.Bucket {
	if from.Is6() {
		p, _ := from.WithZone("").Prefix(subnetBits) // an address of IPv6 has one
		from = p.Addr()
	}
	return ss.rates.Of(from, now)
}

// add counts one; nil: there are too many.
func (ss *strangers) add(conn *net.TCPConn, ofHost bool) *stranger {
	s := &stranger{conn: conn, ofHost: ofHost, began: time.Now()}
	s.from = plainAddr(conn.RemoteAddr().(*net.TCPAddr).AddrPort()).Addr()
	there, most, mostFrom := len(ss.all)-ss.ofHost, maxStrangers, maxStrangersFromIP
	if ofHost {
		there, most, mostFrom = ss.ofHost, maxOfHosts, maxFromHost
	}
	if there >= most || ss.from[s.from] >= mostFrom || !ofHost && !ss.mayBegin(s.from, s.began) {
		return nil
	}
	ss.all[s] = struct{}{}
	ss.from[s.from]++
	if ofHost {
		ss.ofHost++
	}
	return s
}

// forget has one count no more; nil, and one that does not count, are passed over.
func (ss *strangers) forget(s *stranger) {
	if _, is := ss.all[s]; !is {
		return
	}
	delete(ss.all, s)
	if ss.from[s.from]--; ss.from[s.from] == 0 {
		delete(ss.from, s.from)
	}
	if s.ofHost {
		ss.ofHost--
	}
}

// before are the connections that began before a time.
func (ss *strangers) before(t time.Time) (list []*net.TCPConn) {
	for s := range ss.all {
		if s.began.Before(t) {
			list = append(list, s.conn)
		}
	}
	return list
}

// greet finds out what an accepted connection is by what it begins with: a carrier, or one for a connection of
// containers.
func (f *Fabric) greet(conn *net.TCPConn) {
	cs := &f.carriers
	from := plainAddr(conn.RemoteAddr().(*net.TCPAddr).AddrPort()).Addr()
	cs.mu.Lock()
	var s *stranger
	if !cs.closed {
		s = cs.strangers.add(conn, f.state.Load().ofHosts[from])
	}
	cs.mu.Unlock()
	if s == nil {
		_ = conn.Close()
		f.drops[DropRate].Add(1)
		return
	}
	f.workers.Go(func() {
		became := false // if it did, it counts until WireGuard knows whose it is
		isolate.Do(f.log, "greeting another host", func() { became = f.greeted(s) })
		if !became {
			f.met(s)
		}
	})
}

// met has a stranger count no more.
func (f *Fabric) met(s *stranger) {
	f.carriers.mu.Lock()
	defer f.carriers.mu.Unlock()
	f.carriers.strangers.forget(s)
}

// greeted reads what a connection begins with, and says whether it has become a carrier. Else it is over, or in other
// hands.
func (f *Fabric) greeted(s *stranger) bool {
	_ = s.conn.SetDeadline(s.began.Add(strangerFor))
	var begin [hostconn.PreambleLen]byte
	_, err := io.ReadFull(s.conn, begin[:])
	switch {
	case err == nil && string(begin[:]) == carrierMagic:
		_ = s.conn.SetDeadline(time.Time{})
		return f.addCarrier(s.conn, nil, s) != nil
	case err == nil && hostconn.IsPreamble(begin):
		f.answerAsked(s, begin)
		return false
	case !errors.Is(err, net.ErrClosed): // else this host has ended it
		f.drops[DropNotVXLAN].Add(1)
	}
	_ = s.conn.Close()
	return false
}
