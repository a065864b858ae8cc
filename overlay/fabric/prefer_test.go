package fabric

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
)

// everywhere makes a host with a key that is reached at all addresses of its namespace, with a plain network.
func everywhere(t *testing.T, host overlay.HostID, number byte) *side {
	t.Helper()
	return newSideAt(t, Config{Host: host, Listen: netip.MustParseAddrPort("0.0.0.0:0"), Key: seal.NewKey()}, number)
}

// at is the host as a peer that names these addresses.
func (s *side) at(addrs ...string) Peer {
	p := Peer{Host: s.host, Key: s.fabric.PublicKey()}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, netip.AddrPortFrom(netip.MustParseAddr(a), s.fabric.Addrs()[0].Port()))
	}
	return p
}

// knows tells a host of another one, and of its container.
func (s *side) knows(t *testing.T, o *side, addrs ...string) {
	t.Helper()
	must(t, s.fabric.SetPeers([]Peer{o.at(addrs...)}))
	s.entries(t, o.entry())
}

// reaches waits until a host is reached at an address. Where others were in vain, the next try is after a minute.
func (s *side) reaches(t *testing.T, addr string) {
	t.Helper()
	last := ""
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if p := s.fabric.Peers(); len(p) == 1 {
			if p[0].Alive && p[0].Addr.Addr() == netip.MustParseAddr(addr) {
				return
			}
			last = fmt.Sprintf("%+v", p[0])
		}
	}
	t.Fatalf("no path to %s: %s", addr, last)
}

// carries sends a packet from one container to the other, by the plain network.
func (s *side) carries(t *testing.T, o *side) {
	t.Helper()
	waitFor(t, "frame", func() bool {
		s.guest.port.Receive(frame(o.guest.mac, s.guest.mac, 0x0800, tcp4(s.guest.ip4, o.guest.ip4, 1, []byte("x"))))
		time.Sleep(time.Millisecond)
		return len(o.guest.take()) > 0
	})
}

// TestAHostIsReachedWhereItSays: a host names another address, while the old one still works, and then the first again.
func TestAHostIsReachedWhereItSays(t *testing.T) {
	t.Parallel()
	a, b := everywhere(t, hostA, 2), everywhere(t, hostB, 3)
	a.knows(t, b, "127.6.0.9")
	b.knows(t, a, "127.6.0.1")
	a.reaches(t, "127.6.0.9")
	b.reaches(t, "127.6.0.1")
	a.carries(t, b)
	for _, addr := range []string{"127.6.0.2", "127.6.0.1"} {
		began := time.Now()
		b.knows(t, a, addr)
		b.reaches(t, addr)
		t.Logf("the host is reached at its new address after %v", time.Since(began).Round(time.Millisecond))
		a.carries(t, b)
		b.carries(t, a)
		if p := b.fabric.Peers()[0]; p.Path != Direct {
			t.Errorf("the path is %v", p.Path)
		}
	}
}

// TestTheFirstAddressIsReturnedTo: of two addresses the first one ends, and comes back.
func TestTheFirstAddressIsReturnedTo(t *testing.T) {
	t.Parallel()
	var own *netns
	a, b := everywhere(t, hostA, 2), everywhere(t, hostB, 3)
	a.knows(t, b, "127.7.0.9")
	b.knows(t, a, "127.7.0.1", "127.7.0.2")
	b.reaches(t, "127.7.0.1")
	own.run(t, "nft", `table inet first {
			chain input { type filter hook input priority 0; ip daddr 127.7.0.1 drop; ip saddr 127.7.0.1 drop; }
		}`)
	began := time.Now()
	b.carries(t, a)
	t.Logf("data goes on after %v", time.Since(began).Round(time.Millisecond))
	b.reaches(t, "127.7.0.2")
	b.carries(t, a)
	a.carries(t, b)
	t.Logf("the second address is used after %v", time.Since(began).Round(time.Millisecond))
	own.run(t, "nft", "delete table inet first")
	began = time.Now()
	b.reaches(t, "127.7.0.1")
	b.carries(t, a)
	a.carries(t, b)
	t.Logf("the first address is used again after %v", time.Since(began).Round(time.Millisecond))
}

// TestAHostThatNamesAnothersAddress: frames from an address belong to the host that WireGuard hears there, even where
// another host names the address before it.
func TestAHostThatNamesAnothersAddress(t *testing.T) {
	t.Parallel()
	b, c := everywhere(t, hostB, 2), everywhere(t, hostC, 3)
	at := func() []Peer {
		rogue := c.at("127.8.0.1")
		rogue.Host, rogue.Key = hostA, seal.NewKey().Public()
		return []Peer{rogue, c.at("127.8.0.1")}
	}()
	c.knows(t, b, "127.8.0.9")
	must(t, b.fabric.SetPeers(at))
	b.entries(t, c.entry())
	for range 2 {
		c.carries(t, b)
		must(t, b.fabric.SetPeers(at)) // as with each change of any host
	}
}

// TestAHandshakeForABetterAddressGoesThere: where WireGuard has taken up the old address meanwhile, too.
func TestAHandshakeForABetterAddressGoesThere(t *testing.T) {
	better := newDestination(netip.MustParseAddrPort("192.0.2.2:4789"), nil)
	p := &peer{}
	p.preferring.Store(&better)
	e := &addrEndpoint{dest: newDestination(netip.MustParseAddrPort("192.0.2.1:4789"), nil), peer: p}
	for _, m := range []struct {
		kind byte
		to   *destination
	}{{sealData, &e.dest}, {sealResponse, &e.dest}, {sealInitiation, &better}, {sealInitiation, &e.dest}} {
		if to := e.destOf([]byte{m.kind}); to != m.to {
			t.Errorf("a message of kind %d goes to %v", m.kind, to.addr)
		}
	}
}
