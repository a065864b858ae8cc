package cni

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usernet/usernet/network"
)

// slowRelay is how long this test's binary takes for nothing where it is started as a relay.
const slowRelay = 20 * time.Second

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == RelayArgument {
		time.Sleep(slowRelay)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// relayPlace is a plugin whose relays have their sockets in a directory of the test's, and one container's socket.
func relayPlace(t *testing.T) (p plugin, socket string) {
	t.Helper()
	dir := t.TempDir()
	p.getenv = func(name string) string { return map[string]string{"XDG_RUNTIME_DIR": dir}[name] }
	socket, err := relaySocket(p.getenv, "container")
	if err != nil {
		t.Fatal(err)
	}
	return p, socket
}

// killed leaves what a relay leaves that was killed.
func killed(t *testing.T, socket string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAContainerHasOneRelay starts several at once, as a runtime does that attaches several networks, also where one
// was killed.
func TestAContainerHasOneRelay(t *testing.T) {
	for round := range 200 {
		_, socket := relayPlace(t)
		if round%2 == 0 {
			killed(t, socket)
		}
		var group sync.WaitGroup
		listeners := make(chan net.Listener, 4)
		for range cap(listeners) {
			group.Go(func() {
				l, err := listenRelay(socket)
				if err != nil {
					t.Error(err)
				}
				if l != nil {
					listeners <- l
				}
			})
		}
		group.Wait()
		if n := len(listeners); n != 1 {
			t.Fatalf("%d relays listen for one container", n)
		}
		if err := (<-listeners).Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// fakePorts are ports that look at the socket as they are closed.
type fakePorts struct {
	socket string
	there  atomic.Bool // the socket was, at that time
	closed atomic.Bool
}

func (p *fakePorts) Close() error {
	_, err := os.Lstat(p.socket)
	p.there.Store(err == nil)
	p.closed.Store(true)
	return nil
}

// TestRelaysEnd when they are asked to, and when the container or they themselves are to end. Those that end are no
// relay for a container that starts again.
func TestRelaysEnd(t *testing.T) {
	const asked, gone, signal = "when asked", "with the container", "by a signal"
	for _, name := range []string{asked, gone, signal} {
		t.Run(name, func(t *testing.T) {
			p, socket := relayPlace(t)
			l, err := listenRelay(socket)
			if err != nil || l == nil {
				t.Fatal(l, err)
			}
			if other, err := listenRelay(socket); other != nil || err != nil {
				t.Fatalf("a second relay listens: %v, %v", other, err)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ports, container, served := &fakePorts{socket: socket}, make(chan struct{}), make(chan error, 1)
			go func() { served <- serveRelay(ctx, l, container, ports) }()
			switch name {
			case asked:
				if err := p.endRelay("container"); err != nil || !ports.closed.Load() {
					t.Errorf("%v, and the ports are closed: %v", err, ports.closed.Load())
				}
			case gone:
				close(container)
			case signal:
				stop()
			}
			if err := <-served; err != nil || !ports.closed.Load() || ports.there.Load() {
				t.Errorf("%v, closed %v, there to be found meanwhile %v", err, ports.closed.Load(), ports.there.Load())
			}
		})
	}
}

// TestRelaysThatAreNotThere end without an error.
func TestRelaysThatAreNotThere(t *testing.T) {
	p, socket := relayPlace(t)
	if err := p.endRelay("container"); err != nil {
		t.Errorf("no relay has ever been there: %v", err)
	}
	killed(t, socket)
	for _, what := range []string{"it was killed", "and forgotten"} {
		if err := p.endRelay("container"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its socket is left: %v", err)
	}
}

// TestRelaysAreNotWaitedForForEver starts one that says nothing.
func TestRelaysAreNotWaitedForForEver(t *testing.T) {
	p, _ := relayPlace(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	e := &network.Endpoint{IPv4: netip.MustParsePrefix("10.0.0.2/24")}
	began := time.Now()
	err := p.startRelay(ctx, "container", "/proc/self/ns/net", e, nil)
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "in time") || took >= slowRelay {
		t.Errorf("after %v: %v", took, err)
	}
}
