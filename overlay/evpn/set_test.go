package evpn

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/bgp"
	"github.com/usernet/usernet/overlay/fabric"
)

var (
	self = netip.MustParseAddr("192.0.2.1")
	far  = netip.MustParseAddr("192.0.2.9")
	rd   = bgp.IPv4RD(far, 1)
)

// speaker is a bgp.Speaker without neighbours.
type speaker struct {
	mu      sync.Mutex
	own     map[string][]bgp.Route
	learned []bgp.Route
}

func (s *speaker) ASN() uint32          { return 65000 }
func (s *speaker) RouterID() netip.Addr { return self }
func (s *speaker) Addr() netip.Addr     { return self }

func (s *speaker) Set(name string, routes []bgp.Route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own[name] = routes
}

func (s *speaker) Learned() []bgp.Route {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.learned)
}

func (s *speaker) learn(set *Set, routes ...bgp.Route) {
	s.mu.Lock()
	s.learned = routes
	s.mu.Unlock()
	set.Wake()
}

// announced are the routes of a name, as texts with their sequence numbers.
func (s *speaker) announced(name string) (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.own[name] {
		list = append(list, fmt.Sprintf("%d %v %v %d", r.NLRI.EVPN.Type, overlay.MAC(r.NLRI.EVPN.MAC), r.NLRI.EVPN.IP,
			r.Path.Sequence))
	}
	slices.Sort(list)
	return list
}

// told is what a network was told last.
type told struct {
	mu      sync.Mutex
	vteps   []netip.AddrPort
	entries []fabric.ForeignEntry
}

func (w *told) tell(vteps []netip.AddrPort, entries []fabric.ForeignEntry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.vteps, w.entries = vteps, entries
	return nil
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// is waits until a network knows these VTEPs, and MACs as texts with what comes with them.
func (w *told) is(t *testing.T, vteps string, entries ...string) {
	t.Helper()
	eventually(t, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		var got []string
		for _, e := range w.entries {
			got = append(got, fmt.Sprintf("%v%v%v", e.MAC, e.Addrs, e.Peer.Addr()))
		}
		if fmt.Sprint(w.vteps) != vteps || !reflect.DeepEqual(got, entries) {
			return fmt.Errorf("%v %q, want %s %q", w.vteps, got, vteps, entries)
		}
		return nil
	})
}

func (s *speaker) is(t *testing.T, name string, want ...string) {
	t.Helper()
	eventually(t, func() error {
		if got := s.announced(name); !slices.Equal(got, want) {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	})
}

func macRoute(mac byte, ip string, at netip.Addr, sequence uint32, target string) bgp.Route {
	e := bgp.EVPNRoute{Type: bgp.MACIP, RD: rd, MAC: [6]byte{2, 5: mac}}
	if ip != "" {
		e.IP = netip.MustParseAddr(ip)
	}
	t, err := bgp.ParseTarget(target)
	if err != nil {
		panic(err)
	}
	return bgp.Route{
		NLRI: bgp.NLRI{Family: bgp.EVPN, EVPN: e},
		Path: bgp.Path{NextHop: at, Label: 42, Targets: []bgp.Target{t}, Sequence: sequence, VXLAN: true},
	}
}

func multicastRoute(at netip.Addr, target string) bgp.Route {
	r := macRoute(0, at.String(), at, 0, target)
	r.NLRI.EVPN.Type, r.Path.Ingress = bgp.Multicast, true
	return r
}

func newSet(t *testing.T) (*Set, *speaker) {
	t.Helper()
	s, sp := New(slog.New(slog.DiscardHandler)), &speaker{own: map[string][]bgp.Route{}}
	s.Start(sp)
	t.Cleanup(s.Close)
	return s, sp
}

// TestNetworksHearOfWhatIsTheirs: by target, number and kind, in one place each.
func TestNetworksHearOfWhatIsTheirs(t *testing.T) {
	s, sp := newSet(t)
	var auto, named told
	s.Join(Config{ID: "a", VNI: 42}, auto.tell)
	target, err := bgp.ParseTarget("9:9")
	if err != nil {
		t.Fatal(err)
	}
	s.Join(Config{ID: "b", VNI: 42, Targets: []bgp.Target{target}}, named.tell)
	auto.is(t, "[]")
	tagged, elsewhere, otherVNI := macRoute(4, "", far, 0, "1:42"), macRoute(5, "", self, 0, "1:42"),
		macRoute(6, "", far, 0, "1:42")
	tagged.NLRI.EVPN.Tag, otherVNI.Path.Label = 7, 43
	mpls := macRoute(7, "", far, 0, "1:42")
	mpls.Path.VXLAN = false
	loop := netip.MustParseAddr("127.0.0.1") // frames would go to whatever listens on this machine
	tree := multicastRoute(netip.MustParseAddr("192.0.2.8"), "1:42")
	tree.Path.Ingress = false
	second := netip.MustParseAddr("192.0.2.7")
	sp.learn(s, tagged, elsewhere, otherVNI, mpls, tree, multicastRoute(loop, "1:42"),
		macRoute(8, "", loop, 0, "1:42"), multicastRoute(far, "1:42"), multicastRoute(far, "1:42"),
		macRoute(1, "", far, 0, "1:42"), macRoute(1, "10.0.0.1", far, 0, "1:42"),
		macRoute(1, "fd00::1", far, 0, "1:42"),
		macRoute(2, "10.0.0.2", far, 0, "1:42"), macRoute(2, "10.0.0.3", second, 1, "1:42"),
		macRoute(3, "", far, 0, "9:9"))
	auto.is(t, "[192.0.2.9:0]", "02:00:00:00:00:01[10.0.0.1 fd00::1]192.0.2.9",
		"02:00:00:00:00:02[10.0.0.3]192.0.2.7")
	named.is(t, "[]", "02:00:00:00:00:03[]192.0.2.9")
	sp.learn(s)
	auto.is(t, "[]")
}

// TestEndpointsAreAnnounced while they are there, and after moves with the next number.
func TestEndpointsAreAnnounced(t *testing.T) {
	s, sp := newSet(t)
	var w told
	leave := s.Join(Config{ID: "a", VNI: 42}, w.tell)
	const all = "3 00:00:00:00:00:00 192.0.2.1 0"
	sp.is(t, "evpn/a", all)
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	s.SetContainer("c", []Endpoint{{"a", overlay.MAC{2, 5: 1}, addrs}, {"b", overlay.MAC{2, 5: 2}, nil}})
	sp.is(t, "evpn/a", "2 02:00:00:00:00:01 10.0.0.1 0", "2 02:00:00:00:00:01 fd00::1 0", all)
	sp.learn(s, macRoute(1, "10.0.0.1", far, 1, "1:42"), macRoute(9, "", far, 3, "1:42"))
	sp.is(t, "evpn/a", all) // it has moved away
	s.SetContainer("d", []Endpoint{{"a", overlay.MAC{2, 5: 9}, nil}})
	sp.is(t, "evpn/a", "2 02:00:00:00:00:09 invalid IP 4", all)
	sp.learn(s)
	sp.is(t, "evpn/a", "2 02:00:00:00:00:01 10.0.0.1 2", "2 02:00:00:00:00:01 fd00::1 2",
		"2 02:00:00:00:00:09 invalid IP 4", all)
	s.SetContainer("c", nil)
	sp.is(t, "evpn/a", "2 02:00:00:00:00:09 invalid IP 4", all)
	leave()
	sp.is(t, "evpn/a")
}

// TestDistinguishersDiffer where networks have one number, at different ports, or numbers with the same lower bits.
func TestDistinguishersDiffer(t *testing.T) {
	s, _ := newSet(t)
	seen := map[bgp.RD]bool{}
	for i, vni := range []uint32{42, 42, 1<<16 + 42} {
		var w told
		id := fmt.Sprint(i)
		s.Join(Config{ID: id, VNI: vni}, w.tell)
		s.mu.Lock()
		seen[s.networks[id].rd] = true
		s.mu.Unlock()
	}
	if len(seen) != 3 || !seen[bgp.IPv4RD(self, 42)] {
		t.Errorf("%v", seen)
	}
}

// TestAnErrorOfOneNetwork is that network's alone.
func TestAnErrorOfOneNetwork(t *testing.T) {
	s, sp := newSet(t)
	var w told
	s.Join(Config{ID: "a", VNI: 42}, func([]netip.AddrPort, []fabric.ForeignEntry) error { return errors.New("no") })
	s.Join(Config{ID: "b", VNI: 42}, w.tell)
	sp.learn(s, multicastRoute(far, "1:42"))
	w.is(t, "[192.0.2.9:0]")
}

// TestARouterThatChangesAllTheTime does not have everything made anew for each of its routes.
func TestARouterThatChangesAllTheTime(t *testing.T) {
	s, sp := newSet(t)
	var times atomic.Int64
	s.Join(Config{ID: "a", VNI: 42}, func([]netip.AddrPort, []fabric.ForeignEntry) error {
		times.Add(1)
		return nil
	})
	began := time.Now()
	for i := range 20_000 {
		sp.learn(s, macRoute(byte(i), "", far, uint32(i), "1:42"))
	}
	most := int64(time.Since(began)/minPause) + 2
	if n := times.Load(); n > most {
		t.Errorf("%d times, want %d at most", n, most)
	}
}
