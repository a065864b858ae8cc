package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/network/boltstore"
)

// crashDirVariable makes the test binary a daemon with its state and socket in a directory.
const crashDirVariable = "USERNET_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirVariable); dir != "" {
		fmt.Fprintln(os.Stderr, serveUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serveUntilKilled(dir string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	d, err := New(Config{StateDir: dir, Logger: log})
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		return err
	}
	return api.NewServer(d, log).Serve(l)
}

// acknowledged is what clients of a daemon were told before it was killed.
type acknowledged struct {
	mu         sync.Mutex
	networks   map[string]netip.Prefix // subnet by name
	containers map[string]netip.Addr   // address by name
	pending    map[string]bool         // names whose creation or removal was asked for and not answered
	changes    int
}

// TestKilledDaemonLosesNothing kills a daemon at random instants while clients create and remove networks and
// containers over its API, and each time compares the store with what the clients were told.
func TestKilledDaemonLosesNothing(t *testing.T) {
	kills := 200
	if s := os.Getenv("USERNET_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		kills = n
	}
	dir, err := os.MkdirTemp("/tmp", "un-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	known := &acknowledged{
		networks:   map[string]netip.Prefix{},
		containers: map[string]netip.Addr{},
		pending:    map[string]bool{},
	}
	// Where the machine is slow there are fewer kills, so that the test ends; what was tried is in its log.
	done, deadline := 0, time.Now().Add(15*time.Second)
	for ; done < kills && (time.Now().Before(deadline) || os.Getenv("USERNET_KILLS") != ""); done++ {
		killOnce(t, dir, known)
		known.compare(t, dir)
		if t.Failed() {
			t.Fatalf("after %d kills", done+1)
		}
	}
	t.Logf("%d kills, %d acknowledged changes, nothing lost", done, known.changes)
}

// serveInChild runs a daemon in a process that kill kills.
func serveInChild(t *testing.T, dir string) (client *api.Client, kill func()) {
	t.Helper()
	socket := filepath.Join(dir, "socket")
	_ = os.Remove(socket)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), crashDirVariable+"="+dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	client = api.NewClient(socket)
	for deadline := time.Now().Add(2 * time.Minute); client.Do(context.Background(), "GET", "/_ping", nil,
		nil) != nil; {
		select {
		case <-ended:
			t.Fatal("the daemon did not start on what the last one left")
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			t.Fatal("the daemon does not answer")
		}
	}
	return client, func() {
		_ = cmd.Process.Kill()
		<-ended
	}
}

// atRandom returns at some instant. Nothing depends on how long that takes.
func atRandom() { <-time.After(time.Duration(rand.Int64N(int64(30 * time.Millisecond)))) }

// crashPorts are those that each container of the test is made with.
const crashPorts = 3

// killOnce runs a daemon under load and kills it.
func killOnce(t *testing.T, dir string, known *acknowledged) {
	t.Helper()
	client, kill := serveInChild(t, dir)
	var group sync.WaitGroup
	before := known.count()
	for i := range 3 {
		group.Go(func() { known.churn(t, client, i) })
	}
	// Not before the daemon has acknowledged a change, however long a busy machine takes for it; then at a random
	// instant.
	for deadline := time.Now().Add(2 * time.Minute); known.count() == before &&
		!t.Failed(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("the daemon acknowledges no change")
		}
	}
	atRandom()
	kill()
	group.Wait()
}

// count is how many changes were.
func (k *acknowledged) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changes
}

// churn changes networks and containers until the daemon is gone. Each client has names of its own.
func (k *acknowledged) churn(t *testing.T, c *api.Client, client int) {
	for {
		name := fmt.Sprintf("n%d-%d", client, rand.IntN(4))
		box := "c" + name
		k.mu.Lock()
		_, made := k.networks[name]
		_, boxed := k.containers[box]
		k.mu.Unlock()
		var err error
		switch {
		case !made:
			var n network.Network
			err = k.change(name, func() error {
				return c.Do(context.Background(), "POST", "/usernet/networks", network.NetworkSpec{Name: name}, &n)
			}, func() { k.networks[name] = n.Pools[0].Subnet })
		case !boxed && rand.IntN(2) == 0:
			var made api.Created
			spec := network.ContainerSpec{Name: box, NetworkMode: name, Command: []string{"true"}}
			for i := range uint16(crashPorts) {
				spec.Ports = append(spec.Ports, network.PortBinding{Port: 80 + i, End: 80 + i, Proto: network.TCP})
			}
			err = k.change(box, func() error {
				return c.Do(context.Background(), "POST", "/usernet/containers", spec, &made)
			}, func() { k.containers[box] = made.Container.Endpoints[0].IPv4.Addr() })
		case boxed:
			err = k.change(box, func() error {
				return c.Do(context.Background(), "DELETE", "/usernet/containers/"+box, nil, nil)
			}, func() { delete(k.containers, box) })
		default:
			err = k.change(name, func() error {
				return c.Do(context.Background(), "DELETE", "/usernet/networks/"+name, nil, nil)
			}, func() { delete(k.networks, name) })
		}
		var refused *api.Error
		switch {
		case errors.As(err, &refused):
			t.Errorf("%s: %v", name, err) // it disagrees with what it said before
			return
		case err != nil:
			return // killed
		}
	}
}

// change asks for one change, and records it once it is acknowledged.
func (k *acknowledged) change(name string, ask func() error, record func()) error {
	k.mu.Lock()
	k.pending[name] = true
	k.mu.Unlock()
	err := ask()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		delete(k.pending, name)
		record()
		k.changes++
	}
	return err
}

// compare opens the store that a killed daemon left. What was asked for and not answered may have happened or not; the
// next round goes on from what did.
func (k *acknowledged) compare(t *testing.T, dir string) {
	t.Helper()
	m, err := boltstore.OpenModel(filepath.Join(dir, "usernet.db"), network.Options{})
	if err != nil {
		t.Fatalf("the store does not open: %v", err)
	}
	defer func() {
		if err := m.Close(); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}()
	networks, containers := map[string]netip.Prefix{}, map[string]netip.Addr{}
	for _, n := range m.Networks() {
		if n.Name[0] == 'n' && n.Name != "none" {
			networks[n.Name] = n.Pools[0].Subnet
		}
	}
	for _, c := range m.Containers() {
		containers[c.Name] = c.Endpoints[0].IPv4.Addr()
		if len(c.Ports) != crashPorts {
			t.Errorf("container %s has %d ports of %d", c.Name, len(c.Ports), crashPorts)
		}
		if _, ok := networks[c.Endpoints[0].Network]; !ok {
			t.Errorf("container %s is on network %s, which is not there", c.Name, c.Endpoints[0].Network)
		}
	}
	agree(t, "network", k.networks, networks, k.pending)
	agree(t, "container", k.containers, containers, k.pending)
	k.pending = map[string]bool{}
	k.networks, k.containers = networks, map[string]netip.Addr{} // a new daemon forgets what was never started
	seen := map[netip.Prefix]string{}
	for name, p := range networks {
		if seen[p] != "" {
			t.Errorf("networks %s and %s both have %s", seen[p], name, p)
		}
		seen[p] = name
	}
}

func agree[V comparable](t *testing.T, kind string, told, have map[string]V, pending map[string]bool) {
	t.Helper()
	for name, v := range told {
		if got, ok := have[name]; !pending[name] && (!ok || got != v) {
			t.Errorf("%s %s was acknowledged with %v, and the store has %v", kind, name, v, got)
		}
	}
	for name := range have {
		if _, ok := told[name]; !ok && !pending[name] {
			t.Errorf("%s %s is in the store, and its removal was acknowledged or it was never asked for", kind, name)
		}
	}
}
