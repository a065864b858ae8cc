package libnetwork

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
)

// newTestMember makes one without sockets.
func newTestMember(t *testing.T, s Store, dir string, addr string) *Member {
	t.Helper()
	l, err := openLeases(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := &Member{cfg: Config{Addr: netip.MustParseAddr(addr)}, log: slog.New(slog.DiscardHandler), store: s, leases: l,
		woken: make(chan struct{}, 1), uncounted: map[string]uncounted{}}
	m.mu.view = &view{}
	m.mu.own = map[string][]overlay.Endpoint{}
	m.ctx, m.cancel = context.WithCancel(t.Context())
	t.Cleanup(m.cancel)
	return m
}

// round is what the worker does, but for what others are told in the gossip.
func (m *Member) round(t *testing.T) *view {
	t.Helper()
	v, err := m.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.reconcile(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if v, err = m.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.mu.view = v
	m.mu.Unlock()
	if err := m.giveBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v
}

// dockers is a store as a daemon has left it, with one network and one endpoint.
func dockers(t *testing.T) *memory {
	t.Helper()
	s := newMemory()
	for key, value := range map[string]string{
		networkKey(dockersID): dockersNetwork, overlayKey(dockersID): dockersOverlay, countKey(dockersID): `{"Count":1}`,
		endpointKey(dockersID, dockersEP): dockersEndpoint, keyPools: dockersPools, keyVNIs: dockersVNIs,
		addressesKey(netip.MustParsePrefix("10.50.0.0/24")): dockersSubnet,
		join(keyNodes, "10.99.0.1:2376"):                    "10.99.0.1:2376",
	} {
		if err := s.Put(t.Context(), key, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// endpointOf is an endpoint of a container with an address.
func endpointOf(id string, a netip.Addr) overlay.Endpoint {
	return overlay.Endpoint{Network: dockersID, EndpointID: id, Container: id, Name: "box", Addrs: []netip.Addr{a},
		MAC: overlay.MAC{2, 0x42}, Running: true}
}

// TestAddressesAreHandedOutOnce has two hosts take addresses at the same time, until there are no more.
func TestAddressesAreHandedOutOnce(t *testing.T) {
	s := dockers(t)
	hosts := []*Member{newTestMember(t, s, t.TempDir(), "10.99.0.3"), newTestMember(t, s, t.TempDir(), "10.99.0.4")}
	n := hosts[0].round(t).networks[dockersID].network
	const free = 251
	var mu sync.Mutex
	found := map[netip.Addr]string{}
	var group sync.WaitGroup
	for i, m := range hosts {
		for worker := range 2 {
			group.Go(func() {
				for j := 0; ; j++ {
					owner := fmt.Sprintf("%d-%d-%d", i, worker, j)
					a, err := m.Reserve(t.Context(), n, n.Pools[0], netip.Addr{}, owner)
					if errors.Is(err, errdefs.ErrUnavailable) {
						continue // the others were faster too often
					}
					if err != nil {
						if !errors.Is(err, errdefs.ErrInternal) {
							t.Error(err)
						}
						return
					}
					again, err := m.Reserve(t.Context(), n, n.Pools[0], netip.Addr{}, owner)
					if again != a || err != nil {
						t.Errorf("the same endpoint has %v and %v: %v", a, again, err)
					}
					mu.Lock()
					if found[a] != "" || a.String() < "10.50.0.4" && len(a.String()) == 9 {
						t.Errorf("%v is handed out to %s, and was to %s", a, owner, found[a])
					}
					found[a] = owner
					mu.Unlock()
				}
			})
		}
	}
	group.Wait()
	if len(found) != free {
		t.Errorf("%d addresses are handed out, want %d", len(found), free)
	}
	want := netip.MustParseAddr("10.50.0.77")
	if _, err := hosts[0].Reserve(t.Context(), n, n.Pools[0], want, "late"); !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("an address in use: %v", err)
	}
	for i, m := range hosts {
		m.Release(n, want, "somebody")
		if strings.HasPrefix(found[want], fmt.Sprint(i)) {
			m.Release(n, want, found[want])
		}
		m.round(t)
	}
	if a, err := hosts[1].Reserve(t.Context(), n, n.Pools[0], want, "late"); err != nil || a != want {
		t.Errorf("an address that is free again: %v, %v", a, err)
	}
}

// TestEndpointsAreTold writes an endpoint, which another host then sees, and takes it back.
func TestEndpointsAreTold(t *testing.T) {
	s := dockers(t)
	m, other := newTestMember(t, s, t.TempDir(), "10.99.0.3"), newTestMember(t, s, t.TempDir(), "10.99.0.4")
	id, a := strings.Repeat("e", 64), netip.MustParseAddr("10.50.0.9")
	m.SetContainer(id, []overlay.Endpoint{endpointOf(id, a)})
	m.round(t)
	m.round(t) // which changes nothing
	if got := s.text(countKey(dockersID)); got != `{"Count":2}` {
		t.Errorf("the count is %s", got)
	}
	other.round(t)
	if list := other.Elsewhere(dockersID); len(list) != 2 || list[1].Addrs[0] != a || list[1].DNSNames[0] != "box" {
		t.Errorf("another host sees %+v", list)
	}
	if list := m.Elsewhere(dockersID); len(list) != 1 || list[0].EndpointID != dockersEP {
		t.Errorf("the host itself sees elsewhere %+v", list)
	}
	peers := other.known().peers()
	if len(peers) != 2 || peers[0].Addrs[0].String() != "10.99.0.1:4789" || peers[1].Addrs[0].String() !=
		"10.99.0.3:4789" {
		t.Errorf("hosts are %+v", peers)
	}
	if err := m.RemoveNetwork(t.Context(), dockersID); !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("a network in use is removed: %v", err)
	}
	m.SetContainer(id, nil)
	m.round(t)
	if got := s.text(countKey(dockersID)); got != `{"Count":1}` || s.text(endpointKey(dockersID, id)) != "" {
		t.Errorf("the count is %s, and there is %s", got, s.text(endpointKey(dockersID, id)))
	}
}

// TestTheStoreGoesBetweenRecordAndCount loses the store after an endpoint's record was written or deleted, before its
// network's count was, or before the host has heard that either was.
func TestTheStoreGoesBetweenRecordAndCount(t *testing.T) {
	id, a := strings.Repeat("e", 64), netip.MustParseAddr("10.50.0.9")
	away := errors.New("the store is away")
	for name, loses := range map[string]func(s *memory, key string){
		"count": func(s *memory, key string) {
			if key == countKey(dockersID) {
				s.fails = away
			}
		},
		"answer": func(s *memory, key string) {
			if key == endpointKey(dockersID, id) {
				s.lost = away
			}
		},
		"record": func(s *memory, key string) {
			if key == endpointKey(dockersID, id) {
				s.fails = away
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := dockers(t)
			m := newTestMember(t, s, t.TempDir(), "10.99.0.3")
			for _, step := range []struct {
				endpoints []overlay.Endpoint
				count     string
			}{
				{[]overlay.Endpoint{endpointOf(id, a)}, `{"Count":2}`},
				{nil, `{"Count":1}`},
			} {
				m.SetContainer(id, step.endpoints)
				v, err := m.read(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				s.before = func(key string) { loses(s, key) }
				if _, err := m.reconcile(t.Context(), v); !errors.Is(err, away) {
					t.Fatalf("the round ended with %v", err)
				}
				s.before, s.fails, s.lost = nil, nil, nil
				m.round(t)
				m.round(t)
				if got := s.text(countKey(dockersID)); got != step.count {
					t.Errorf("with endpoints %v the count is %s, want %s", step.endpoints, got, step.count)
				}
			}
		})
	}
}

// TestACountThatIsTooHigh removes a network without endpoints whose count a daemon of Docker has left too high.
func TestACountThatIsTooHigh(t *testing.T) {
	s := dockers(t)
	m := newTestMember(t, s, t.TempDir(), "10.99.0.3")
	m.round(t)
	if err := m.RemoveNetwork(t.Context(), dockersID); !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("a network in use is removed: %v", err)
	}
	delete(s.pairs, endpointKey(dockersID, dockersEP))
	came := false
	s.before = func(key string) { // another host writes an endpoint meanwhile
		if key != countKey(dockersID) || came {
			return
		}
		came = true
		p, err := s.Get(t.Context(), key)
		if err == nil {
			err = s.Put(t.Context(), key, []byte(`{"Count":2}`), p.Index)
		}
		if err != nil {
			t.Error(err)
		}
	}
	if err := m.RemoveNetwork(t.Context(), dockersID); !errors.Is(err, ErrConflict) {
		t.Errorf("a network whose count has changed meanwhile is removed: %v", err)
	}
	if err := m.RemoveNetwork(t.Context(), dockersID); err != nil {
		t.Error(err)
	}
	if list := m.Networks(); len(list) != 0 || s.text(networkKey(dockersID)) != "" {
		t.Errorf("there are still %+v", list)
	}
}

// TestAfterACrash begins again on the state of a daemon that was killed: what its dead containers had is given back,
// and what those that live have stays.
func TestAfterACrash(t *testing.T) {
	s, dir := dockers(t), t.TempDir()
	m := newTestMember(t, s, dir, "10.99.0.3")
	n := m.round(t).networks[dockersID].network
	addrs := map[string]netip.Addr{}
	for _, c := range []string{"a", "b"} {
		id := strings.Repeat(c, 64)
		a, err := m.Reserve(t.Context(), n, n.Pools[0], netip.Addr{}, id)
		if err != nil {
			t.Fatal(err)
		}
		addrs[id] = a
		m.SetContainer(id, []overlay.Endpoint{endpointOf(id, a)})
	}
	m.round(t)
	again := newTestMember(t, s, dir, "10.99.0.3")
	lives, dead := strings.Repeat("a", 64), strings.Repeat("b", 64)
	again.Adopt(dockersID, addrs[lives], lives)
	again.SetContainer(lives, []overlay.Endpoint{endpointOf(lives, addrs[lives])})
	again.leases.abandon()
	again.round(t)
	b, err := decodeBitmap([]byte(s.text(addressesKey(n.Pools[0].Subnet))))
	if err != nil {
		t.Fatal(err)
	}
	for id, taken := range map[string]bool{lives: true, dead: false} {
		is, there := b.isSet(ordinal(n.Pools[0].Subnet, addrs[id])), s.text(endpointKey(dockersID, id)) != ""
		if is != taken || there != taken {
			t.Errorf("address %v is taken: %v; its endpoint is there: %v; want %v", addrs[id], is, there, taken)
		}
	}
	if got := s.text(countKey(dockersID)); got != `{"Count":2}` {
		t.Errorf("the count is %s", got)
	}
}

// TestTheFirstEndpointDrawsTheNumber has two hosts come to a network that has no number on the wire yet.
func TestTheFirstEndpointDrawsTheNumber(t *testing.T) {
	s := dockers(t)
	m, other := newTestMember(t, s, t.TempDir(), "10.99.0.3"), newTestMember(t, s, t.TempDir(), "10.99.0.4")
	p, err := s.Get(t.Context(), overlayKey(dockersID))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), p.Key, []byte(strings.Replace(dockersOverlay, "256", "0", 1)), p.Index); err != nil {
		t.Fatal(err)
	}
	n := m.round(t).networks[dockersID].network
	if n.VNI != 0 {
		t.Fatalf("it has number %d", n.VNI)
	}
	faster := false
	s.before = func(key string) {
		if key != overlayKey(dockersID) || faster {
			return
		}
		faster = true
		if vni, err := other.numberOf(n); err != nil || vni != 258 {
			t.Errorf("the other host has number %d, %v", vni, err)
		}
	}
	for range 2 {
		if vni, err := m.numberOf(n); err != nil || vni != 258 {
			t.Errorf("the number is %d, %v", vni, err)
		}
	}
	b, err := decodeBitmap([]byte(s.text(keyVNIs)))
	if err != nil || b.isSet(1) || !b.isSet(2) || b.isSet(3) {
		t.Errorf("numbers that are taken: %+v, %v", b, err)
	}
}

// TestNetworksAreMade makes one beside Docker's, as far as the store lets it, and removes both.
func TestNetworksAreMade(t *testing.T) {
	s := dockers(t)
	m := newTestMember(t, s, t.TempDir(), "10.99.0.3")
	m.round(t)
	make := func(subnet, gateway, vni string) error {
		n := &network.Network{
			ID: strings.Repeat("f", 64), Name: "ov2", Driver: "overlay", Scope: "global", Options: map[string]string{},
			Pools: []network.Pool{{
				Subnet: netip.MustParsePrefix(subnet), Gateway: netip.MustParseAddr(gateway), Configured: true,
			}},
		}
		if vni != "" {
			n.Options["com.docker.network.driver.overlay.vxlanid_list"] = vni
		}
		return m.CreateNetwork(t.Context(), n)
	}
	before := fmt.Sprint(len(s.pairs), s.text(keyPools), s.text(keyVNIs))
	if err := make("10.50.0.128/25", "10.50.0.129", ""); !errors.Is(err, overlay.ErrPoolTaken) {
		t.Errorf("with a subnet of another: %v", err)
	}
	if err := make("10.51.0.0/24", "10.51.0.1", "256"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("with a number of another: %v", err)
	}
	if after := fmt.Sprint(len(s.pairs), s.text(keyPools), s.text(keyVNIs)); after != before {
		t.Errorf("networks that were not made have left %s; before: %s", after, before)
	}
	if err := make("10.51.0.0/24", "10.51.0.1", ""); err != nil {
		t.Fatal(err)
	}
	list := m.Networks()
	if len(list) != 2 || list[1].Name != "ov2" || list[1].VNI != 257 ||
		list[1].Pools[0].Gateway.String() != "10.51.0.1" {
		t.Fatalf("networks are %+v", list)
	}
	a, err := m.Reserve(t.Context(), list[1], list[1].Pools[0], netip.Addr{}, "e")
	if err != nil || a.String() != "10.51.0.2" {
		t.Errorf("its first address is %v, %v", a, err)
	}
	if err := m.RemoveNetwork(t.Context(), list[1].ID); err != nil {
		t.Fatal(err)
	}
	if after := fmt.Sprint(len(s.pairs), s.text(keyPools), s.text(keyVNIs)); after != before {
		t.Errorf("a network that was removed has left %s; before: %s", after, before)
	}
}

// TestAStoreThatHasLostItsData is given a network again, with the number and the addresses that are in use here.
func TestAStoreThatHasLostItsData(t *testing.T) {
	s := dockers(t)
	m := newTestMember(t, s, t.TempDir(), "10.99.0.3")
	n := m.round(t).networks[dockersID].network
	have, err := m.Reserve(t.Context(), n, n.Pools[0], netip.Addr{}, "e")
	if err != nil {
		t.Fatal(err)
	}
	m.store = newMemory()
	m.round(t)
	if err := m.PutAgain(n); err != nil {
		t.Fatal(err)
	}
	other := newTestMember(t, m.store, t.TempDir(), "10.99.0.4")
	again := other.round(t).networks[dockersID]
	if again == nil || again.network.VNI != n.VNI || again.network.Name != n.Name {
		t.Fatalf("another host sees %+v", again)
	}
	for range 4 {
		a, err := other.Reserve(t.Context(), again.network, again.network.Pools[0], netip.Addr{}, rand.Text())
		if err != nil || a == have {
			t.Errorf("another host gets %v, %v; %v is in use", a, err, have)
		}
	}
}
