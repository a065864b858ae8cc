package vswitch

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"
)

// clocked is a switch whose clock the test sets.
func clocked() (*Switch, *time.Duration) {
	sw, now := New(Config{}), new(time.Duration)
	sw.clock = func() time.Duration { return *now }
	return sw, now
}

// modelPort is a port as a slow, obvious model has it.
type modelPort struct {
	cfg    PortConfig
	static []macKey
	seen   map[macKey]time.Duration // learned, and when it was last seen
}

// model is a switch without isolation or guard: which ports a frame is written to.
type model struct{ ports []*modelPort }

// sameVLAN says whether frames between two ports stay in a VLAN; the gateway is in all of them.
func sameVLAN(p, q *modelPort) bool {
	return p.cfg.VLAN == q.cfg.VLAN || p.cfg.Role == Gateway || q.cfg.Role == Gateway
}

// reaches says whether one port may send to another.
func reaches(p, q *modelPort) bool {
	outside := p.cfg.Role == Uplink && q.cfg.Role == Gateway || p.cfg.Role == Gateway && q.cfg.Role == Uplink
	return sameVLAN(p, q) && !outside
}

func (m *model) owner(k macKey) *modelPort {
	for _, p := range m.ports {
		if keyOf(p.cfg.MAC) == k {
			return p
		}
	}
	for _, p := range m.ports {
		if slices.Contains(p.static, k) {
			return p
		}
	}
	return nil
}

func (m *model) setStatic(p *modelPort, macs []macKey) {
	p.static = nil
	for _, k := range macs {
		if m.owner(k) == nil {
			p.static = append(p.static, k)
			for _, q := range m.ports {
				delete(q.seen, k)
			}
		}
	}
}

// send returns the ports that a frame is written to, and whether it passes at all.
func (m *model) send(p *modelPort, dst, src macKey, now time.Duration) (to []*modelPort, passes bool) {
	own := keyOf(p.cfg.MAC)
	fresh := func(q *modelPort, k macKey) bool {
		at, ok := q.seen[k]
		return ok && (q.cfg.age() == 0 || now-at <= q.cfg.age())
	}
	switch owner := m.owner(src); {
	case p.cfg.Role == Gateway || src == own:
	case p.cfg.Role == Guest:
		return nil, false
	case owner != nil && owner != p:
		return nil, false
	case owner == p:
	case p.cfg.learnLimit() == 0:
	case p.seen[src] != 0:
		p.seen[src] = now
	default:
		if len(p.seen) >= p.cfg.learnLimit() {
			for k := range p.seen {
				if !fresh(p, k) {
					delete(p.seen, k)
				}
			}
		}
		if len(p.seen) < p.cfg.learnLimit() {
			for _, q := range m.ports {
				if q.cfg.VLAN == p.cfg.VLAN {
					delete(q.seen, src)
				}
			}
			p.seen[src] = now
		}
	}
	flood := func(unknown bool) {
		for _, q := range m.ports {
			split := p.cfg.FloodGroup != 0 && p.cfg.FloodGroup == q.cfg.FloodGroup
			if q != p && !split && reaches(p, q) && (!unknown || q.cfg.learnLimit() > 0) {
				to = append(to, q)
			}
		}
	}
	if dst&groupBit != 0 {
		flood(false)
		return to, true
	}
	q := m.owner(dst)
	for _, each := range m.ports {
		if q == nil && fresh(each, dst) && sameVLAN(p, each) {
			q = each
		}
	}
	switch {
	case q == nil:
		flood(true)
	case q != p && reaches(p, q):
		to = append(to, q)
	}
	return to, true
}

// TestForwardingTableAgainstModel holds roles, flood groups, static entries, learning and ageing against the model,
// with random histories.
func TestForwardingTableAgainstModel(t *testing.T) {
	configs := []PortConfig{
		{Role: Gateway}, {Role: Guest}, {Role: Guest}, {Role: Learning},
		{Role: Learning, LearnLimit: 3, Age: 10 * time.Second},
		{Role: Fabric, FloodGroup: 1}, {Role: Fabric, FloodGroup: 1, LearnLimit: 2}, {Role: Uplink},
		{Role: Uplink, LearnLimit: NoLearning, FloodGroup: 2},
		{Role: Guest, VLAN: 20}, {Role: Learning, VLAN: 20}, {Role: Uplink, VLAN: 20},
	}
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 7))
		sw, now := clocked()
		*now = time.Second
		m := &model{}
		var ports []*Port
		var devs []*recorder
		for i, cfg := range configs {
			cfg.MAC = mac(byte(1 + i))
			p, d := connect(t, sw, cfg)
			p.floods.Burst = 1 << 40 // how often is another test's
			ports, devs = append(ports, p), append(devs, d)
			m.ports = append(m.ports, &modelPort{cfg: cfg, seen: map[macKey]time.Duration{}})
		}
		some := func() net.HardwareAddr { return mac(byte(1 + r.IntN(len(configs)+12))) }
		for step := range 1500 {
			*now += time.Duration(r.IntN(1500)) * time.Millisecond
			i := r.IntN(len(ports))
			if r.IntN(20) == 0 {
				var macs []net.HardwareAddr
				var keys []macKey
				for range r.IntN(4) {
					a := some()
					macs, keys = append(macs, a), append(keys, keyOf(a))
				}
				sw.SetStatic(ports[i], macs)
				m.setStatic(m.ports[i], keys)
				continue
			}
			src, dst := some(), some()
			if r.IntN(2) == 0 || m.ports[i].cfg.Role == Guest {
				src = mac(byte(1 + i))
			}
			if r.IntN(6) == 0 {
				dst = broadcast
			}
			for _, d := range devs {
				d.reset()
			}
			want, passes := m.send(m.ports[i], keyOf(dst), keyOf(src), *now)
			ports[i].Receive(frame(dst, src, 0x88b5, nil))
			for k, d := range devs {
				if got, expected := d.got() == 1, passes && slices.Contains(want, m.ports[k]); got != expected {
					t.Fatalf("seed %d, step %d: frame from port %d (%v) of %v to %v reached port %d (%v): %t, want %t",
						seed, step, i, configs[i].Role, src, dst, k, configs[k].Role, got, expected)
				}
			}
		}
	}
}

func TestStaticEntriesBeatLearning(t *testing.T) {
	sw, _ := clocked()
	vm, vmDev := connect(t, sw, PortConfig{Name: "vm", MAC: mac(2), Role: Learning})
	fabric, fabricDev := connect(t, sw, PortConfig{Name: "fabric", MAC: mac(3), Role: Fabric})
	guest, _ := connect(t, sw, guarded(4))
	far := mac(9)
	vm.Receive(frame(mac(4), far, 0x88b5, nil))
	sw.SetStatic(fabric, []net.HardwareAddr{far, mac(4), broadcast, {1, 2}})
	if got := fmt.Sprint(fabric.Static()); got != fmt.Sprint([]net.HardwareAddr{far}) {
		t.Errorf("static are %s: a port's own MAC and groups are not to be", got)
	}
	if n := len(vm.Learned()); n != 0 {
		t.Errorf("%d MACs stay learned that are static elsewhere", n)
	}
	guest.Receive(frame(far, mac(4), 0x88b5, nil))
	if fabricDev.got() != 1 || vmDev.got() != 0 {
		t.Errorf("%d frames to the static port, %d to the other", fabricDev.got(), vmDev.got())
	}
	vm.Receive(frame(mac(4), far, 0x88b5, nil))
	if n := vm.Stats().Drops[DropMAC]; n != 1 {
		t.Errorf("%d drops for taking a static MAC over", n)
	}
	if err := fabric.Close(); err != nil {
		t.Fatal(err)
	}
	vm.Receive(frame(mac(4), far, 0x88b5, nil)) // nobody's any more
	if n := len(vm.Learned()); n != 1 {
		t.Errorf("%d MACs are learned after the static port is gone", n)
	}
	sw.SetStatic(fabric, []net.HardwareAddr{mac(10)})
	if len(sw.table.Load().static) != 0 {
		t.Error("a closed port has static entries")
	}
}

func TestMirrorSeesEachFrameBothWays(t *testing.T) {
	sw := New(Config{})
	a, _ := connect(t, sw, guarded(2))
	b, _ := connect(t, sw, guarded(3))
	type sight struct {
		p  *Port
		in bool
	}
	var first, second []sight
	stop := sw.Mirror(func(p *Port, in bool, _ *Frame) { first = append(first, sight{p, in}) })
	stopSecond := sw.Mirror(func(p *Port, in bool, _ *Frame) { second = append(second, sight{p, in}) })
	a.Receive(frame(mac(3), mac(2), 0x88b5, nil))
	a.Receive(frame(mac(3), mac(9), 0x88b5, nil)) // forged
	if want := []sight{{a, true}, {b, false}, {a, true}}; !slices.Equal(first, want) || !slices.Equal(second, want) {
		t.Errorf("shown were %v and %v", first, second)
	}
	stop()
	stop() // again is no harm
	a.Receive(frame(mac(3), mac(2), 0x88b5, nil))
	if len(first) != 3 || len(second) != 5 {
		t.Errorf("shown were %d after the end, and %d to the other", len(first), len(second))
	}
	stopSecond()
	if sw.mirror.Load() != nil {
		t.Error("frames are still looked at")
	}
}

func TestFloodsAreBounded(t *testing.T) {
	sw := New(Config{})
	gw, _ := connect(t, sw, PortConfig{MAC: mac(1), Role: Gateway})
	a, _ := connect(t, sw, guarded(2))
	b, _ := connect(t, sw, guarded(3))
	a.floods.PerSecond = 0 // no time passes
	for range floodBurst {
		a.Receive(frame(broadcast, mac(2), 0x88b5, nil))
	}
	if got, want := b.Stats().FramesOut, uint64(floodBurst/len(sw.Ports())); got != want {
		t.Errorf("%d broadcasts went through, want %d", got, want)
	}
	if a.Stats().Drops[DropRate] == 0 {
		t.Error("the others are not counted")
	}
	before := b.Stats().FramesOut
	a.Receive(frame(mac(3), mac(2), 0x88b5, nil))
	gw.Receive(frame(broadcast, mac(1), 0x88b5, nil))
	if n := b.Stats().FramesOut - before; n != 2 {
		t.Errorf("of a unicast and the gateway's broadcast %d arrived", n)
	}
}

func TestRolesHaveNames(t *testing.T) {
	for r := range numRoles {
		text, err := r.MarshalText()
		if err != nil || len(text) == 0 || string(text) == numRoles.String() {
			t.Errorf("role %d is %q (%v)", r, text, err)
		}
	}
}
