package fabric

import (
	"testing"
	"time"
)

// TestTheDirectWayIsTriedEachMinute has two hosts reach each other through a third for some hours of a clock of the
// test's own. A try comes to the other host through the relay, which answers.
func TestTheDirectWayIsTriedEachMinute(t *testing.T) {
	const natWaits = 30 * time.Second // for an answer (Linux: nf_conntrack_udp_timeout)
	began := time.Unix(1e9, 0)
	low := newPeer(&Fabric{cfg: Config{Host: hostA}}, hostB)
	high := newPeer(&Fabric{cfg: Config{Host: hostB}}, hostA)
	both := []*peer{low, high}
	tries := map[*peer][]time.Time{}
	for now := began; now.Before(began.Add(4 * time.Hour)); now = now.Add(tick) {
		for _, p := range both {
			p.via.Store(newPeer(p.f, hostC))
			p.probes.answered, p.probes.heard = now, true
			if !p.round(now) {
				continue
			}
			if now.UnixNano()-p.shook.Load() < int64(5*time.Second) {
				t.Errorf("%v: WireGuard begins no handshake so soon after the last one", now.Sub(began))
			}
			tries[p] = append(tries[p], now)
			for _, q := range both {
				q.shook.Store(now.UnixNano())
			}
		}
	}
	if first := tries[high][0].Sub(tries[low][0]); tries[low][0] != began || first < directAfter || first > natWaits {
		t.Errorf("the first tries are %v apart, the first of them %v late", first, tries[low][0].Sub(began))
	}
	for _, p := range both {
		list := tries[p]
		if n := len(list); n < 4*50 || n > 4*70 {
			t.Errorf("host %s tries %d times in 4 hours", p.f.cfg.Host, n)
		}
		for i := range list[5:] {
			if d := list[5+i].Sub(list[4+i]); d < directEvery/2 || d > 80*time.Second {
				t.Errorf("host %s tries after %v", p.f.cfg.Host, d)
			}
		}
	}
	next := 0 // of the other host's, behind the one that opened this host's NAT
	for _, at := range tries[low][:len(tries[low])-1] {
		for next < len(tries[high])-1 && !tries[high][next].After(at) {
			next++
		}
		if d := tries[high][next].Sub(at); d > natWaits {
			t.Errorf("after %v the other host tries %v behind this one", at.Sub(began), d)
		}
	}
}
