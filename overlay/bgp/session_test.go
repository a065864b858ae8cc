package bgp

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/leak"
)

// patience is how long a test waits for what happens at once on a machine with nothing else to do.
const patience = 30 * time.Second

var loopback = netip.MustParseAddr("127.0.0.1")

// router is the other side: it takes connections, and says and hears what a test wants.
type router struct {
	t    *testing.T
	l    net.Listener
	conn net.Conn
}

func newRouter(t *testing.T) *router {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &router{t: t, l: l}
	t.Cleanup(func() {
		_ = l.Close()
		if r.conn != nil {
			_ = r.conn.Close()
		}
	})
	return r
}

// speaker is one that connects to the router.
func (r *router) speaker(stale time.Duration, changed func()) *Speaker {
	r.t.Helper()
	cfg := Config{
		ASN: 65000, RouterID: loopback, Addrs: []netip.Addr{loopback}, Changed: changed, Hold: MinHold,
		Neighbors: []Neighbor{{Addr: netip.MustParseAddrPort(r.l.Addr().String())}},
		Logger:    slog.New(slog.DiscardHandler),
	}
	s, err := newSpeaker(cfg, stale, time.Millisecond)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(s.Close)
	return s
}

// accept takes the next connection, and answers its OPEN.
func (r *router) accept(answer open) {
	r.t.Helper()
	if r.conn != nil {
		_ = r.conn.Close()
	}
	_ = r.l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	var err error
	if r.conn, err = r.l.Accept(); err != nil {
		r.t.Fatal(err)
	}
	if kind, _ := r.read(); kind != msgOpen {
		r.t.Fatalf("message %d first", kind)
	}
	r.write(appendOpen(nil, answer))
}

// establish makes a session.
func (r *router) establish() {
	r.t.Helper()
	r.accept(open{asn: 65000, hold: DefaultHold, id: netip.MustParseAddr("192.0.2.9"), families: families[:]})
	r.expect(msgKeepalive)
	r.write(appendKeepalive(nil))
}

func (r *router) read() (byte, []byte) {
	r.t.Helper()
	_ = r.conn.SetReadDeadline(time.Now().Add(patience))
	kind, body, err := readMessage(r.conn)
	if err != nil {
		r.t.Fatal(err)
	}
	return kind, body
}

// expect reads until a message of a kind comes.
func (r *router) expect(want byte) []byte {
	r.t.Helper()
	for {
		kind, body := r.read()
		if kind == want {
			return body
		}
		if kind == msgNotification {
			r.t.Fatalf("a notification: % x", body)
		}
	}
}

func (r *router) write(b []byte) {
	r.t.Helper()
	if _, err := r.conn.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// announce has the router announce a route.
func (r *router) announce(route Route) {
	r.t.Helper()
	me := self{asn: 65000, addrs: addrs{v4: netip.MustParseAddr("192.0.2.9")}}
	b, err := appendUpdate(nil, route, &me)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(b)
}

// refuses waits for a notification.
func (r *router) refuses(code, subcode byte) {
	r.t.Helper()
	for {
		kind, body := r.read()
		if kind != msgNotification {
			continue
		}
		if len(body) < 2 || body[0] != code || body[1] != subcode {
			r.t.Errorf("notification % x, want %d %d", body, code, subcode)
		}
		return
	}
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
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

// knows waits until a speaker has n routes.
func knows(t *testing.T, s *Speaker, n int) {
	t.Helper()
	eventually(t, func() error {
		if got := s.Learned(); len(got) != n {
			return fmt.Errorf("%v: %d routes, want %d", got, len(got), n)
		}
		return nil
	})
}

// TestRoutesGoBothWays, while the session is there and after it has come again.
func TestRoutesGoBothWays(t *testing.T) {
	running := leak.Goroutines()
	t.Cleanup(func() { running.NoneLeft(t) })
	r := newRouter(t)
	changes := make(chan struct{}, 100)
	s := r.speaker(time.Hour, func() { changes <- struct{}{} })
	own := macRoute("10.0.0.1")
	own.Path.NextHop = netip.Addr{}
	s.Set("a", []Route{own})
	for range 2 {
		r.establish()
		u, err := parseUpdate(r.expect(msgUpdate), internal)
		if err != nil || len(u.reach) != 1 || u.reach[0].NLRI != own.NLRI || u.reach[0].Path.NextHop != loopback {
			t.Fatalf("%+v, %v", u, err)
		}
		for range families {
			if u, err := parseUpdate(r.expect(msgUpdate), internal); err != nil || u.ended == 0 {
				t.Fatalf("%+v, %v, want the end of a family's routes", u, err)
			}
		}
		r.announce(macRoute("10.0.0.9"))
		r.announce(multicastRoute("192.0.2.9"))
		knows(t, s, 2)
		<-changes
	}
	r.write(appendWithdrawal(nil, macRoute("10.0.0.9").NLRI))
	knows(t, s, 1)
	s.Set("b", []Route{own}) // the same by another name changes nothing
	s.Set("a", nil)
	moved := own
	moved.Path.Sequence = 1
	s.Set("b", []Route{moved})
	s.Set("b", nil)
	for {
		u, err := parseUpdate(r.expect(msgUpdate), internal)
		if err != nil {
			t.Fatal(err)
		}
		if len(u.withdrawn) == 1 {
			break
		}
		if len(u.reach) != 1 || u.reach[0].Path.Sequence != 1 {
			t.Fatalf("%+v", u)
		}
	}
	if st := s.States()[0]; !st.Established || st.Learned != 1 || len(st.Families) != len(families) {
		t.Errorf("%+v", st)
	}
	s.Close()
	r.refuses(errCease, ceaseShutdown)
}

// TestRoutesOfALostSessionStay for a while, until the next one has said what there is, and not where the neighbour
// meant its end.
func TestRoutesOfALostSessionStay(t *testing.T) {
	r := newRouter(t)
	s := r.speaker(time.Hour, nil)
	r.establish()
	r.announce(macRoute("10.0.0.9"))
	r.announce(multicastRoute("192.0.2.9"))
	knows(t, s, 2)
	r.establish() // which closes the connection before
	knows(t, s, 2)
	r.announce(macRoute("10.0.0.9"))
	r.write(appendEndOfRIB(nil, EVPN))
	knows(t, s, 1)
	r.write(appendNotification(nil, &notification{code: errCease, subcode: ceaseDeconfigured}))
	knows(t, s, 0)

	short := newRouter(t)
	s = short.speaker(50*time.Millisecond, nil)
	short.establish()
	short.announce(macRoute("10.0.0.9"))
	knows(t, s, 1)
	_ = short.conn.Close()
	_ = short.l.Close()
	knows(t, s, 0)
}

// TestRoutesThatAreNotTold are counted by reason: the neighbour does not take them, or they have no next hop.
func TestRoutesThatAreNotTold(t *testing.T) {
	r := newRouter(t)
	s := r.speaker(time.Hour, nil) // has an IPv4 address only
	unicast := func(f Family, prefix string) Route {
		return Route{NLRI: NLRI{Family: f, Prefix: netip.MustParsePrefix(prefix)}}
	}
	s.Set("a", []Route{unicast(IPv4Unicast, "10.0.0.1/32"), unicast(IPv6Unicast, "fd00::1/128"), macRoute("10.0.0.1")})
	r.accept(open{asn: 65000, hold: DefaultHold, id: netip.MustParseAddr("192.0.2.9"),
		families: []Family{IPv4Unicast, IPv6Unicast}})
	r.expect(msgKeepalive)
	r.write(appendKeepalive(nil))
	r.expect(msgUpdate)
	eventually(t, func() error {
		want := map[string]int{
			"the neighbour does not take l2vpn-evpn":                              1,
			"ipv6-unicast: this host has no address that the route could lead to": 1,
		}
		if st := s.States()[0]; st.Announced != 1 || !maps.Equal(st.Withheld, want) {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	s.Set("a", nil)
	eventually(t, func() error {
		if st := s.States()[0]; st.Announced+len(st.Withheld) != 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
}

// TestSessionsEnd with the notification that says why.
func TestSessionsEnd(t *testing.T) {
	fits := open{asn: 65000, hold: DefaultHold, id: netip.MustParseAddr("192.0.2.9"), families: families[:]}
	other := fits
	other.asn = 65001
	message := func(kind byte, b ...byte) []byte {
		return message(nil, kind, func(m []byte) []byte { return append(m, b...) })
	}
	unmarked := appendKeepalive(nil)
	unmarked[3] = 0
	for _, test := range []struct {
		name          string
		answer        open
		say           []byte // once the session is there; nil: nothing at all
		code, subcode byte
	}{
		{"another AS", other, nil, errOpen, openBadAS},
		{"silence", fits, nil, errHold, 0},
		{"no marker", fits, unmarked, errHeader, headerNotSynchronized},
		{"an unknown message", fits, message(9), errHeader, headerBadType},
		{"a keepalive with something in it", fits, message(msgKeepalive, 1), errHeader, headerBadLength},
		{"a second OPEN", fits, appendOpen(nil, fits), errFSM, 3},
		{"routes that cannot be told apart", fits, message(msgUpdate, 0, 9), errUpdate, updateMalformedList},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRouter(t)
			s := r.speaker(time.Hour, nil)
			r.accept(test.answer)
			if test.answer.asn == fits.asn {
				r.expect(msgKeepalive)
				r.write(appendKeepalive(nil))
				r.write(test.say)
			}
			r.refuses(test.code, test.subcode)
			eventually(t, func() error {
				if st := s.States()[0]; st.Error == "" {
					return errors.New("nobody is told why")
				}
				return nil
			})
		})
	}
}

// TestTheReasonStays: a router that refuses a session ends the next connections without a word.
func TestTheReasonStays(t *testing.T) {
	r := newRouter(t)
	s := r.speaker(time.Hour, nil)
	fits := open{asn: 65000, hold: DefaultHold, id: netip.MustParseAddr("192.0.2.9"), families: families[:]}
	other := fits
	other.asn = 65001
	r.accept(other)
	r.refuses(errOpen, openBadAS)
	c, err := r.l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	eventually(t, func() error {
		if st := s.States()[0]; !strings.Contains(st.Error, "; before that: bad AS") {
			return fmt.Errorf("the state is %q", st.Error)
		}
		return nil
	})
	r.accept(fits)
	r.expect(msgKeepalive)
	r.write(appendKeepalive(nil))
	eventually(t, func() error {
		if st := s.States()[0]; !st.Established || st.Error != "" {
			return fmt.Errorf("with a session: %+v", st)
		}
		return nil
	})
}

// TestMoreRoutesThanAreKept are counted, and the others stay.
func TestMoreRoutesThanAreKept(t *testing.T) {
	var log bytes.Buffer
	s := &Speaker{
		cfg: Config{Changed: func() {}}, log: slog.New(slog.NewTextHandler(&log, nil)), staleTime: time.Hour,
	}
	n := newNeighbor(s, Neighbor{})
	s.neighbors = []*neighbor{n}
	many := update{reach: make([]Route, 0, MaxLearned+2)}
	for i := range MaxLearned + 2 {
		route := macRoute("")
		route.NLRI.EVPN.Tag = uint32(i)
		many.reach = append(many.reach, route)
	}
	n.take(many)
	for range 1000 {
		n.take(update{fault: "x", withdrawn: []NLRI{many.reach[0].NLRI}})
	}
	if st := s.States()[0]; st.Learned != MaxLearned-1 || st.Ignored != 2 || st.Malformed != 1000 {
		t.Errorf("%+v", st)
	}
	if lines := strings.Count(log.String(), "more routes than are kept"); lines != 1 {
		t.Errorf("that there are too many is logged %d times", lines)
	}
	if lines := strings.Count(log.String(), "count as withdrawn"); lines == 0 || lines > 500 {
		t.Errorf("1000 malformed messages at once are logged %d times", lines)
	}
}

// TestConfigurationsThatCannotBe are refused with what is wrong.
func TestConfigurationsThatCannotBe(t *testing.T) {
	good := func() Config {
		return Config{ASN: 1, RouterID: loopback, Addrs: []netip.Addr{loopback},
			Neighbors: []Neighbor{{Addr: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), 0)}}}
	}
	for name, change := range map[string]func(*Config){
		"no AS":            func(c *Config) { c.ASN = 0 },
		"no router id":     func(c *Config) { c.RouterID = netip.IPv6Loopback() },
		"no neighbours":    func(c *Config) { c.Neighbors = nil },
		"one twice":        func(c *Config) { c.Neighbors = append(c.Neighbors, c.Neighbors[0]) },
		"no addresses":     func(c *Config) { c.Addrs = nil },
		"two of a family":  func(c *Config) { c.Addrs = append(c.Addrs, loopback) },
		"another VTEP":     func(c *Config) { c.VTEP = netip.IPv6Loopback() },
		"a second to hold": func(c *Config) { c.Hold = time.Second },
		"a long password":  func(c *Config) { c.Neighbors[0].Password = string(make([]byte, MaxPassword+1)) },
	} {
		cfg := good()
		change(&cfg)
		if s, err := New(cfg); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// TestVTEPs: EVPN routes lead to the IPv4 address, unless another one is said to be the VTEP.
func TestVTEPs(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, test := range []struct{ vtep, want netip.Addr }{{want: v4}, {v4, v4}, {v6, v6}} {
		cfg := Config{ASN: 1, RouterID: v4, Addrs: []netip.Addr{v4, v6}, VTEP: test.vtep,
			Neighbors: []Neighbor{{Addr: netip.AddrPortFrom(v6.Next(), 0)}}}
		a, err := cfg.check()
		if err != nil || a.vtep() != test.want {
			t.Errorf("%+v: %v, %v", test, a, err)
		}
		me := self{asn: 1, addrs: a}
		own := macRoute("")
		own.Path.NextHop = netip.Addr{}
		if hop, err := me.nextHop(own); err != nil || hop != test.want {
			t.Errorf("%+v: a route leads to %v, %v", test, hop, err)
		}
	}
}

// TestSignedSessions: both ends sign with the same password, and with another they do not hear each other. The kernel
// has to know TCP MD5.
func TestSignedSessions(t *testing.T) {
	lc := net.ListenConfig{Control: signed(loopback, "secret")}
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := net.Dialer{Control: signed(loopback, "secret"), Timeout: patience}
	c, err := d.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	d = net.Dialer{Control: signed(loopback, "another"), Timeout: 200 * time.Millisecond} // it would take for ever
	if c, err := d.Dial("tcp4", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("another password is answered")
	}
}
