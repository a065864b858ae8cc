package network_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/network/storetest"
)

func TestMemoryStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) network.Store { return network.NewMemoryStore() })
}

// TestModelsShareAStore has several models, as of daemons on several machines, change one store at the same time: each
// change is computed anew where another's came between, so that no address, subnet or name is given twice.
func TestModelsShareAStore(t *testing.T) {
	store := network.NewMemoryStore()
	var models []*network.Model
	for range 4 {
		m, err := network.Open(store, network.Options{})
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, m)
	}
	var group sync.WaitGroup
	for i, m := range models {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 3))
			for step := range 60 {
				name := fmt.Sprintf("m%d-%d", i, step)
				if step < 5 { // there are pools for some more
					if _, _, err := m.CreateNetwork(network.NetworkSpec{Name: name}); err != nil {
						t.Errorf("network %s: %v", name, err)
					}
				}
				c, _, err := m.CreateContainer(network.ContainerSpec{Name: name, NetworkMode: "bridge"})
				if err != nil {
					t.Errorf("container %s: %v", name, err)
					continue
				}
				if _, err := m.UpdateContainer(c.ID,
					func(c *network.Container) error { c.Hostname = name; return nil }); err != nil {
					t.Errorf("container %s: %v", name, err)
				}
				if r.IntN(3) == 0 {
					if err := m.RemoveContainer(c.ID); err != nil {
						t.Errorf("container %s: %v", name, err)
					}
				}
				// The same name at the same time: one may have it.
				_, _, _ = m.CreateContainer(network.ContainerSpec{Name: fmt.Sprint("same-", step), NetworkMode: "none"})
			}
		})
	}
	group.Wait()
	m, err := network.Open(store, network.Options{})
	if err != nil {
		t.Fatal(err)
	}
	names, addrs, subnets := map[string]int{}, map[netip.Prefix]string{}, map[netip.Prefix]string{}
	for _, n := range m.Networks() {
		for _, p := range n.Pools {
			if subnets[p.Subnet] != "" {
				t.Errorf("networks %s and %s have %s", n.Name, subnets[p.Subnet], p.Subnet)
			}
			subnets[p.Subnet] = n.Name
		}
	}
	for _, c := range m.Containers() {
		names[c.Name]++
		for _, e := range c.Endpoints {
			if a := e.IPv4; a.IsValid() && addrs[a] != "" {
				t.Errorf("containers %s and %s have %s", c.Name, addrs[a], a)
			}
			addrs[e.IPv4] = c.Name
		}
	}
	for name, n := range names {
		if n != 1 {
			t.Errorf("%d containers are called %s", n, name)
		}
	}
	for step := range 60 {
		if name := fmt.Sprint("same-", step); names[name] != 1 {
			t.Errorf("%d containers are called %s", names[name], name)
		}
	}
}

func TestModelsSeeWhatOthersChange(t *testing.T) {
	store := network.NewMemoryStore()
	a, errA := network.Open(store, network.Options{})
	b, errB := network.Open(store, network.Options{})
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.CreateNetwork(network.NetworkSpec{Name: "mynet"}); err != nil {
		t.Fatal(err)
	}
	// b does not know of it yet, and has to look before it says so.
	if _, _, err := b.CreateContainer(network.ContainerSpec{Name: "c1", NetworkMode: "mynet"}); err != nil {
		t.Errorf("a network that another has made: %v", err)
	}
	if err := b.RemoveContainer("c1"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan error)
	go func() { followed <- b.Follow(ctx) }()
	if err := a.RemoveNetwork("mynet"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := b.Network("mynet"); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("what another has removed is still there")
		}
	}
	cancel()
	if err := <-followed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// slow is a store whose disk takes its time.
type slow struct {
	*network.MemoryStore
	writing, written chan struct{}
}

func (s slow) Update(ctx context.Context, f func(network.Tx) error) (network.Revision, error) {
	if s.writing != nil {
		s.writing <- struct{}{}
		<-s.written
	}
	return s.MemoryStore.Update(ctx, f)
}

// TestReadersDoNotWaitForTheDisk reads a model while one of its changes is being stored.
func TestReadersDoNotWaitForTheDisk(t *testing.T) {
	s := &slow{MemoryStore: network.NewMemoryStore()}
	m, err := network.Open(s, network.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.writing, s.written = make(chan struct{}), make(chan struct{})
	made := make(chan error)
	go func() {
		_, _, err := m.CreateNetwork(network.NetworkSpec{Name: "mynet"})
		made <- err
	}()
	<-s.writing
	if _, err := m.Network("mynet"); err == nil || len(m.Networks()) != 3 || len(m.Containers()) != 0 {
		t.Error("what is not stored is there already")
	}
	s.written <- struct{}{}
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	if _, err := m.Network("mynet"); err != nil {
		t.Error(err)
	}
}

// failing is a store that stores nothing any more.
type failing struct {
	*network.MemoryStore
	err error
}

func (s *failing) Update(ctx context.Context, f func(network.Tx) error) (network.Revision, error) {
	if s.err != nil {
		return 0, s.err
	}
	return s.MemoryStore.Update(ctx, f)
}

func TestWhatIsNotStoredIsNotThere(t *testing.T) {
	s := &failing{MemoryStore: network.NewMemoryStore()}
	m, err := network.Open(s, network.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := m.CreateContainer(network.ContainerSpec{Name: "c1", NetworkMode: "bridge"})
	if err != nil {
		t.Fatal(err)
	}
	s.err = errors.New("the disk is full")
	if _, _, err := m.CreateContainer(network.ContainerSpec{Name: "c2", NetworkMode: "bridge"}); !errors.Is(err,
		s.err) {
		t.Errorf("created: %v", err)
	}
	if _, _, err := m.Disconnect("bridge", c.ID, false); !errors.Is(err, s.err) {
		t.Errorf("disconnected: %v", err)
	}
	if err := m.RemoveContainer(c.ID); !errors.Is(err, s.err) {
		t.Errorf("removed: %v", err)
	}
	if list := m.Containers(); len(list) != 1 || len(list[0].Endpoints) != 1 {
		t.Errorf("%+v", list)
	}
}
