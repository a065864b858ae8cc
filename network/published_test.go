package network

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sortedPorts are bindings of single ports, in order.
func sortedPorts(list []PortBinding) (all []PortBinding) {
	for _, b := range list {
		for i := range b.Count() {
			one := b
			one.Port, one.End = b.Port+uint16(i), b.Port+uint16(i)
			if b.Count() > 1 && b.HostPort != 0 {
				one.HostPort, one.HostEnd = b.HostPort+uint16(i), b.HostPort+uint16(i)
			}
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b PortBinding) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), cmp.Compare(a.HostPort, b.HostPort),
			cmp.Compare(a.HostEnd, b.HostEnd), a.HostIP.Compare(b.HostIP))
	})
	return all
}

// TestPortsAreWhatWasAskedFor adds and removes random ports of containers that come, go, change and are read again, and
// compares them with lists that are made anew each time.
func TestPortsAreWhatWasAskedFor(t *testing.T) {
	type box struct{ asked, bound []PortBinding }
	hosts := []netip.Addr{{}, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 5))
		path := filepath.Join(t.TempDir(), "db")
		m := open(t, path)
		boxes := map[string]*box{}
		draw := func(n int) (list []PortBinding) {
			for range r.IntN(n) {
				b := PortBinding{HostIP: hosts[1+r.IntN(2)], Port: uint16(80 + r.IntN(8)),
					Proto: []Protocol{TCP, UDP}[r.IntN(2)]}
				b.End = b.Port + uint16(r.IntN(3))
				if r.IntN(3) > 0 {
					b.HostPort = b.Port + uint16(1000*r.IntN(4))
					b.HostEnd = b.HostPort + b.End - b.Port
				}
				list = append(list, b)
			}
			return list
		}
		without := func(list, drop []PortBinding) (left []PortBinding) {
			for _, b := range list {
				left = append(left, b.Without(drop, func(PortBinding) []PortBinding { return nil })...)
			}
			return left
		}
		for step := range 200 {
			name := fmt.Sprint("box", r.IntN(3))
			b := boxes[name]
			var err error
			switch {
			case b == nil:
				b = &box{asked: draw(4)}
				boxes[name] = b
				_, _, err = m.CreateContainer(ContainerSpec{Name: name, NetworkMode: BridgeName, Ports: b.asked})
			case r.IntN(20) == 0:
				delete(boxes, name)
				err = m.RemoveContainer(name)
			case r.IntN(20) == 0:
				m = open(t, path)
			case r.IntN(10) == 0:
				_, err = m.UpdateContainer(name, func(c *Container) error { c.Hostname = fmt.Sprint(step); return nil })
			case r.IntN(6) == 0:
				b.bound = sortedPorts(draw(5))
				err = m.SetBound(name, b.bound)
			case r.IntN(6) == 0:
				b.bound = sortedPorts(draw(5))
				_, err = m.UpdateBound(name, b.bound, func(c *Container) error { c.Domainname = "x"; return nil })
			case r.IntN(2) == 0:
				asked, bound := draw(4), sortedPorts(draw(4))
				b.asked, b.bound = append(slices.Clone(b.asked), asked...), append(slices.Clone(b.bound), bound...)
				err = m.AddPorts(name, asked, bound)
			default:
				drop := draw(4)
				b.asked, b.bound = without(b.asked, drop), slices.DeleteFunc(slices.Clone(b.bound),
					func(x PortBinding) bool {
						return slices.ContainsFunc(drop, func(p PortBinding) bool {
							return p.Covers(PortProto{Port: x.Port, Proto: x.Proto}) && p.HostIP == x.HostIP &&
								(p.HostPort == 0 || x.HostPort == 0 ||
									p.HostPort <= x.HostPort && x.HostPort <= max(p.HostPort, p.HostEnd))
						})
					})
				err = m.RemovePorts(name, drop, func(PortBinding) []PortBinding { return nil })
			}
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			for name, want := range boxes {
				c, err := m.Container(name)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(sortedPorts(c.Ports), sortedPorts(want.asked)) ||
					!slices.Equal(sortedPorts(c.Bound), sortedPorts(want.bound)) {
					t.Fatalf("seed %d, step %d: %s has\n%v\n%v\nand should have\n%v\n%v", seed, step, name, c.Ports,
						c.Bound, want.asked, want.bound)
				}
			}
			if n := storedPorts(t, m); n != countStored(m) {
				t.Fatalf("seed %d, step %d: %d ports are stored, and the model has %d", seed, step, n, countStored(m))
			}
		}
	}
}

// storedPorts counts the records of ports.
func storedPorts(t *testing.T, m *Model) (n int) {
	t.Helper()
	err := m.store.View(t.Context(), func(tx Tx) error {
		for _, b := range []Bucket{bucketPorts, bucketBound} {
			if err := tx.All(b, func(string, []byte) error { n++; return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func countStored(m *Model) (n int) {
	for _, p := range m.ports {
		n += p.asked.Len() + p.bound.Len()
	}
	return n
}

// counting counts what is stored.
type counting struct {
	*MemoryStore
	records, bytes int
}

type countingTx struct {
	Tx
	s *counting
}

func (t countingTx) Put(b Bucket, id string, value []byte) error {
	t.s.records++
	t.s.bytes += len(id) + len(value)
	return t.Tx.Put(b, id, value)
}

func (s *counting) Update(ctx context.Context, f func(Tx) error) (Revision, error) {
	return s.MemoryStore.Update(ctx, func(tx Tx) error { return f(countingTx{tx, s}) })
}

// TestOneMorePortDoesNotGrow measures what one more port of a container stores and allocates beside few and beside
// many: it must not grow with those that are there.
func TestOneMorePortDoesNotGrow(t *testing.T) {
	s := &counting{MemoryStore: NewMemoryStore()}
	m, err := Open(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := m.CreateContainer(ContainerSpec{Name: "c1", NetworkMode: BridgeName})
	if err != nil {
		t.Fatal(err)
	}
	port := func(i int) []PortBinding {
		at := uint16(20_000 + i)
		return []PortBinding{{HostIP: netip.MustParseAddr("127.0.0.2"), HostPort: at, HostEnd: at, Port: 80, End: 80,
			Proto: TCP}}
	}
	bound := func(b PortBinding) []PortBinding { return []PortBinding{b} }
	had := 0
	add := func() {
		if err := m.AddPorts(c.ID, port(had), port(had)); err != nil {
			t.Fatal(err)
		}
		had++
	}
	type cost struct{ allocs, records, bytes float64 }
	measure := func() (added, removed cost) {
		const n = 50
		one := func(f func()) cost {
			records, bytes := s.records, s.bytes
			allocs := testing.AllocsPerRun(n-1, f) // which calls it once before
			return cost{allocs, float64(s.records-records) / n, float64(s.bytes-bytes) / n}
		}
		added = one(add)
		removed = one(func() {
			had--
			if err := m.RemovePorts(c.ID, port(had), bound); err != nil {
				t.Fatal(err)
			}
		})
		return added, removed
	}
	for had < 50 {
		add()
	}
	addedFew, removedFew := measure()
	var many []PortBinding
	for ; had < 10_000; had++ {
		many = append(many, port(had)...)
	}
	if err := m.AddPorts(c.ID, many, many); err != nil {
		t.Fatal(err)
	}
	addedMany, removedMany := measure()
	t.Logf("one more port: %+v beside 50, %+v beside 10,000; one less: %+v and %+v", addedFew, addedMany, removedFew,
		removedMany)
	for _, x := range []struct{ few, many cost }{{addedFew, addedMany}, {removedFew, removedMany}} {
		if x.many.allocs > 2*x.few.allocs || x.many.records != x.few.records || x.many.bytes > x.few.bytes+20 {
			t.Errorf("beside 50: %+v, beside 10,000: %+v", x.few, x.many)
		}
	}
	if c, err := m.Container("c1"); err != nil || len(c.Ports) != had || len(c.Bound) != had {
		t.Errorf("%d ports and %d bound, want %d: %v", len(c.Ports), len(c.Bound), had, err)
	}
}

// TestOtherChangesDoNotWritePorts has other changes of a container not write its ports.
func TestOtherChangesDoNotWritePorts(t *testing.T) {
	s := &counting{MemoryStore: NewMemoryStore()}
	m, err := Open(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	spec := ContainerSpec{Name: "c1", NetworkMode: BridgeName}
	for i := range 1000 {
		spec.Ports = append(spec.Ports, PortBinding{Port: uint16(i + 1), End: uint16(i + 1), Proto: TCP})
	}
	c, _, err := m.CreateContainer(spec)
	if err != nil || len(c.Ports) != 1000 {
		t.Fatal(len(c.Ports), err)
	}
	s.records = 0
	if _, err := m.RenameContainer("c1", "c2"); err != nil || s.records != 1 {
		t.Errorf("a rename wrote %d records, %v", s.records, err)
	}
	if _, err := m.UpdateContainer("c2", func(c *Container) error { c.Ports = spec.Ports; return nil }); err == nil {
		t.Error("ports were changed where they are not known")
	}
	if err := m.SetBound("c2", spec.Ports); err != nil {
		t.Fatal(err)
	}
	s.records = 0
	if err := m.SetBound("c2", spec.Ports); err != nil || s.records != 0 {
		t.Errorf("what is bound already wrote %d records, %v", s.records, err)
	}
}

// TestStoreWithPortsInContainers opens a store of the format before, in which a container's record has its ports.
func TestStoreWithPortsInContainers(t *testing.T) {
	store := NewMemoryStore()
	id, plain := strings.Repeat("a", 64), strings.Repeat("b", 64)
	asked := []PortBinding{
		{HostPort: 8000, HostEnd: 8001, Port: 80, End: 81, Proto: TCP}, {Port: 53, End: 53, Proto: UDP},
	}
	bound := []PortBinding{{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 40000, HostEnd: 40000, Port: 53,
		End: 53, Proto: UDP}}
	put := func(tx Tx, b Bucket, id string, v any) {
		text, err := json.Marshal(v)
		if err == nil {
			err = tx.Put(b, id, text)
		}
		if err != nil {
			t.Error(err)
		}
	}
	_, err := store.Update(t.Context(), func(tx Tx) error {
		put(tx, bucketContainers, id, Container{ID: id, Name: "c1", Status: Running, Hostname: "h", Ports: asked,
			Bound: bound})
		put(tx, bucketContainers, plain, Container{ID: plain, Name: "c2", Status: Exited})
		return tx.Put(bucketMeta, keySchema, []byte(withPorts))
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is of the format of now
		m, err := Open(store, Options{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := m.Container("c1")
		if err != nil || !slices.Equal(c.Ports, asked) || !slices.Equal(c.Bound, bound) || c.Hostname != "h" {
			t.Errorf("%+v, %v", c, err)
		}
		if c, err := m.Container("c2"); err != nil || c.Ports != nil || c.Bound != nil {
			t.Errorf("%+v, %v", c, err)
		}
	}
	err = store.View(t.Context(), func(tx Tx) error {
		if got := string(tx.Get(bucketMeta, keySchema)); got != schema {
			t.Errorf("the format is %q", got)
		}
		if text := string(tx.Get(bucketContainers, id)); strings.Contains(text, "8000") {
			t.Errorf("the record still has ports: %s", text)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestPortRecordsThatMakeNoSense are refused, but not those of a container that is not there.
func TestPortRecordsThatMakeNoSense(t *testing.T) {
	id := strings.Repeat("a", 64)
	for key, ok := range map[string]bool{portID(id, 7): true, id: false, "x/0000000000000001": false,
		id + "/1": false, id + "/000000000000000g": false, portID(id, 7) + "0": false} {
		store := NewMemoryStore()
		_, err := store.Update(t.Context(), func(tx Tx) error { return tx.Put(bucketPorts, key, []byte(`{"port":1}`)) })
		if err != nil {
			t.Fatal(err)
		}
		m, err := Open(store, Options{})
		if (err == nil) != ok {
			t.Errorf("%q: %v", key, err)
		}
		if err == nil && len(m.ports) != 0 {
			t.Errorf("%q: %v", key, m.ports)
		}
	}
}
