package network

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
)

// The reference model of the property test: what should exist, kept in the most obvious way.
type refNet struct {
	v4, v6 netip.Prefix // a /29 and a /125, so that they run full; zero where the family is off
}

type refBox struct {
	mode   string
	status Status
	ends   []*refEnd // in order of connection
}

type refEnd struct {
	net    string
	link   string
	v4, v6 netip.Addr
}

type reference struct {
	t     *testing.T
	r     *rand.Rand
	path  string
	m     *Model
	nets  map[string]*refNet
	boxes map[string]*refBox
	log   []string
}

// TestRandomHistories drives random sequences of all that changes the model, and compares it with the reference after
// each.
func TestRandomHistories(t *testing.T) {
	steps := 250
	if testing.Short() {
		steps = 50
	}
	for seed := range uint64(8) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			ref := &reference{
				t:     t,
				r:     rand.New(rand.NewPCG(seed, 1)),
				path:  filepath.Join(t.TempDir(), "db"),
				nets:  map[string]*refNet{},
				boxes: map[string]*refBox{},
			}
			ref.m = open(t, ref.path)
			defer func() { _ = ref.m.Close() }()
			for range steps {
				ref.step()
				ref.compare()
				if t.Failed() {
					t.Fatalf("history:\n%s", strings.Join(ref.log, "\n"))
				}
			}
		})
	}
}

func (f *reference) step() {
	steps := []struct {
		weight int
		do     func()
	}{
		{3, f.createNetwork}, {2, f.removeNetwork}, {8, f.createContainer}, {4, f.start}, {3, f.end}, {3, f.remove},
		{6, f.connect}, {4, f.disconnect}, {2, f.rename}, {1, f.restart},
	}
	sum := 0
	for _, s := range steps {
		sum += s.weight
	}
	n := f.r.IntN(sum)
	for _, s := range steps {
		if n -= s.weight; n < 0 {
			s.do()
			return
		}
	}
}

// did writes a step down and checks that it failed exactly where the reference says.
func (f *reference) did(err error, fails bool, format string, args ...any) {
	f.log = append(f.log, fmt.Sprintf(format, args...)+fmt.Sprintf(": %v", err))
	if (err != nil) != fails {
		f.t.Errorf("%s: error %v, but the reference says failure %v", f.log[len(f.log)-1], err, fails)
	}
	if err != nil && !errdefs.Classified(err) {
		f.t.Errorf("error %v has no class", err)
	}
}

func (f *reference) pick(prefix string, n int) string {
	return fmt.Sprintf("%s%d", prefix, f.r.IntN(n))
}

func (f *reference) createNetwork() {
	name, i := f.pick("n", 5), f.r.IntN(6)
	n := &refNet{}
	on, off := true, false
	spec := NetworkSpec{Name: name, EnableIPv4: &off, EnableIPv6: &off}
	if f.r.IntN(4) > 0 {
		n.v4 = netip.MustParsePrefix(fmt.Sprintf("10.7.0.%d/29", 8*i))
		spec.EnableIPv4 = &on
		spec.Pools = append(spec.Pools, Pool{Subnet: n.v4})
	}
	if f.r.IntN(3) == 0 {
		n.v6 = netip.MustParsePrefix(fmt.Sprintf("fd07::%x/125", 8*i))
		spec.EnableIPv6 = &on
		spec.Pools = append(spec.Pools, Pool{Subnet: n.v6})
	}
	fails := f.nets[name] != nil || len(spec.Pools) == 0
	for _, o := range f.nets {
		fails = fails || n.v4.IsValid() && o.v4 == n.v4 || n.v6.IsValid() && o.v6 == n.v6
	}
	_, _, err := f.m.CreateNetwork(spec)
	f.did(err, fails, "network create %s %v %v", name, n.v4, n.v6)
	if !fails {
		f.nets[name] = n
	}
}

func (f *reference) removeNetwork() {
	name := f.pick("n", 5)
	fails := f.nets[name] == nil
	for _, b := range f.boxes {
		fails = fails || b.status != Exited && b.end(name) != nil
	}
	f.did(f.m.RemoveNetwork(name), fails, "network rm %s", name)
	if !fails {
		delete(f.nets, name)
	}
}

func (b *refBox) end(net string) *refEnd {
	for _, e := range b.ends {
		if e.net == net {
			return e
		}
	}
	return nil
}

// lowest is the first address of p behind the gateway that nobody has; the highest of IPv4 is for broadcasts.
func (f *reference) lowest(net string, p netip.Prefix) netip.Addr {
	for a := p.Addr().Next().Next(); p.Contains(a); a = a.Next() {
		if a.Is4() && !p.Contains(a.Next()) {
			break
		}
		if !f.taken(net, a) {
			return a
		}
	}
	return netip.Addr{}
}

func (f *reference) taken(net string, a netip.Addr) bool {
	for _, b := range f.boxes {
		if e := b.end(net); e != nil && (e.v4 == a || e.v6 == a) {
			return true
		}
	}
	return false
}

// join is what connecting b to a network does; want is an address asked for, or invalid. Nil where it has to fail.
func (f *reference) join(b *refBox, net string, want netip.Addr) *refEnd {
	n := f.nets[net]
	if n == nil || b.end(net) != nil || b.mode == HostName || strings.HasPrefix(b.mode, "container:") ||
		b.end(NoneName) != nil {
		return nil
	}
	e := &refEnd{net: net}
	if b.status == Exited {
		return e
	}
	if want.IsValid() && (f.taken(net, want) || want == n.v4.Addr() || want == n.v4.Addr().Next() ||
		!n.v4.Contains(want) || !n.v4.Contains(want.Next())) {
		return nil // another's, the network's, the gateway's, nobody's, or the broadcast address
	}
	if n.v4.IsValid() {
		if e.v4 = want; !want.IsValid() {
			e.v4 = f.lowest(net, n.v4)
		}
		if !e.v4.IsValid() {
			return nil
		}
	}
	if n.v6.IsValid() {
		if e.v6 = f.lowest(net, n.v6); !e.v6.IsValid() {
			return nil
		}
	}
	for i := 0; ; i++ {
		e.link = fmt.Sprintf("eth%d", i)
		if !slices.ContainsFunc(b.ends, func(o *refEnd) bool { return o.link == e.link }) {
			return e
		}
	}
}

func (f *reference) createContainer() {
	name, mode := f.pick("box", 8), f.pick("n", 5)
	switch f.r.IntN(8) {
	case 0:
		mode = HostName
	case 1:
		mode = NoneName
	case 2:
		mode = "container:" + f.pick("box", 8)
	}
	b := &refBox{mode: mode, status: Created}
	fails := f.boxes[name] != nil
	switch owner, shared := strings.CutPrefix(mode, "container:"); {
	case shared:
		o := f.boxes[owner]
		fails = fails || o == nil || o.status != Running
	case mode == HostName || mode == NoneName:
		b.ends = []*refEnd{{net: mode}}
	default:
		e := f.join(b, mode, netip.Addr{})
		b.ends = []*refEnd{e}
		fails = fails || e == nil
	}
	_, _, err := f.m.CreateContainer(ContainerSpec{Name: name, NetworkMode: mode})
	f.did(err, fails, "run %s on %s", name, mode)
	if !fails {
		f.boxes[name] = b
	}
}

func (f *reference) start() {
	name := f.pick("box", 8)
	if b := f.boxes[name]; b != nil && b.status == Created {
		_, err := f.m.UpdateContainer(name, func(c *Container) error { c.Status = Running; return nil })
		f.did(err, false, "start %s", name)
		b.status = Running
	}
}

func (f *reference) end() {
	name := f.pick("box", 8)
	b := f.boxes[name]
	if b == nil || b.status != Running {
		return
	}
	_, err := f.m.EndContainer(name, func(c *Container) error { c.Status = Exited; return nil })
	f.did(err, false, "end %s", name)
	b.status = Exited
	for _, e := range b.ends {
		e.v4, e.v6 = netip.Addr{}, netip.Addr{}
	}
}

func (f *reference) remove() {
	name := f.pick("box", 8)
	f.did(f.m.RemoveContainer(name), f.boxes[name] == nil, "rm %s", name)
	delete(f.boxes, name)
}

func (f *reference) connect() {
	net, name := f.pick("n", 5), f.pick("box", 8)
	b, n := f.boxes[name], f.nets[net]
	var spec EndpointSpec
	if n != nil && n.v4.IsValid() && f.r.IntN(3) == 0 {
		spec.IPv4 = n.v4.Addr()
		for range f.r.IntN(9) { // of eight addresses and the next
			spec.IPv4 = spec.IPv4.Next()
		}
	}
	var e *refEnd
	if b != nil {
		e = f.join(b, net, spec.IPv4)
	}
	_, _, err := f.m.Connect(net, name, spec)
	f.did(err, e == nil, "network connect %s %s --ip %v", net, name, spec.IPv4)
	if e != nil {
		b.ends = append(b.ends, e)
	}
}

func (f *reference) disconnect() {
	net, name := f.pick("n", 5), f.pick("box", 8)
	if f.r.IntN(5) == 0 {
		net = []string{HostName, NoneName, BridgeName}[f.r.IntN(3)]
	}
	b := f.boxes[name]
	_, known := map[string]bool{HostName: true, NoneName: true, BridgeName: true}[net]
	fails := b == nil || !known && f.nets[net] == nil || net == HostName || b.end(net) == nil
	_, _, err := f.m.Disconnect(net, name, false)
	f.did(err, fails, "network disconnect %s %s", net, name)
	if !fails {
		b.ends = slices.DeleteFunc(b.ends, func(e *refEnd) bool { return e.net == net })
	}
}

func (f *reference) rename() {
	from, to := f.pick("box", 8), f.pick("box", 8)
	fails := f.boxes[from] == nil || f.boxes[to] != nil
	_, err := f.m.RenameContainer(from, to)
	f.did(err, fails, "rename %s %s", from, to)
	if !fails {
		f.boxes[to] = f.boxes[from]
		delete(f.boxes, from)
	}
}

func (f *reference) restart() {
	f.log = append(f.log, "restart")
	if err := f.m.Close(); err != nil {
		f.t.Error(err)
	}
	f.m = open(f.t, f.path)
}

// compare checks that the model holds what the reference does, and what must hold in any case.
func (f *reference) compare() {
	var got []string
	for _, n := range f.m.Networks() {
		if !isPredefined(n.Name) {
			got = append(got, n.Name)
		}
	}
	if want := slices.Sorted(maps.Keys(f.nets)); !slices.Equal(got, want) {
		f.t.Errorf("networks %v, want %v", got, want)
	}
	checkIndex(f.t, f.m)
	list := f.m.Containers()
	if len(list) != len(f.boxes) {
		f.t.Errorf("%d containers, want %d", len(list), len(f.boxes))
	}
	seen := map[string]string{}
	for _, c := range list {
		b := f.boxes[c.Name]
		if b == nil {
			f.t.Errorf("container %s should not be there", c.Name)
			continue
		}
		if c.Status != b.status || len(c.Endpoints) != len(b.ends) {
			f.t.Errorf("container %s is %s with %d endpoints, want %s with %d", c.Name, c.Status, len(c.Endpoints),
				b.status, len(b.ends))
			continue
		}
		for i, e := range c.Endpoints {
			want := b.ends[i]
			if e.Network != want.net || e.IPv4.Addr() != want.v4 || e.IPv6.Addr() != want.v6 || c.Status != Exited &&
				e.Interface != want.link {
				f.t.Errorf("endpoint of %s: %s %s %v %v, want %+v", c.Name, e.Network, e.Interface, e.IPv4, e.IPv6,
					*want)
			}
			for _, key := range []string{e.IPv4.String(), e.IPv6.String(), e.MAC.String()} {
				if other := seen[e.NetworkID+key]; other != "" && key != "" && !strings.HasPrefix(key, "invalid") {
					f.t.Errorf("%s and %s both have %s on %s", other, c.Name, key, e.Network)
				}
				seen[e.NetworkID+key] = c.Name
			}
		}
	}
}
