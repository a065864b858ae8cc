package libnetwork

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/serf/serf"

	"github.com/usernet/usernet/overlay"
)

// lines is a log that a test looks at.
type lines struct {
	sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.Lock()
	defer l.Unlock()
	return l.text.String()
}

// rogue is a member of the gossip with any name.
func rogue(t *testing.T, a netip.Addr, port int, name string) *serf.Serf {
	t.Helper()
	cfg := serf.DefaultConfig()
	cfg.Init()
	cfg.NodeName, cfg.LogOutput, cfg.MemberlistConfig.LogOutput = name, io.Discard, io.Discard
	cfg.MemberlistConfig.BindAddr, cfg.MemberlistConfig.BindPort = a.String(), port
	cfg.MemberlistConfig.AdvertiseAddr, cfg.MemberlistConfig.AdvertisePort = a.String(), port
	s, err := serf.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown() })
	return s
}

// TestANameThatAnotherTakesInTheGossip does not have this host leave: by default who is in the minority ends, and
// anybody may make a majority. It is so without bad will too where a host comes back with another address.
func TestANameThatAnotherTakesInTheGossip(t *testing.T) {
	const name = "usernet-abc"
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 77, n}) }
	free, err := net.Listen("tcp", net.JoinHostPort(at(1).String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	port := int(netip.MustParseAddrPort(free.Addr().String()).Port())
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	join := func(s *serf.Serf, to byte) {
		t.Helper()
		if _, err := s.Join([]string{net.JoinHostPort(at(to).String(), strconv.Itoa(port))}, true); err != nil {
			t.Fatal(err)
		}
	}
	first := rogue(t, at(2), port, name)
	for n := byte(3); n < 5; n++ {
		rogue(t, at(n), port, "rogue"+strconv.Itoa(int(n)))
		join(first, n)
	}
	own := told{endpoint: overlay.Endpoint{MAC: overlay.MAC{2}}, bits: 24}
	log := new(lines)
	g, err := newGossip(at(1), port, name, func(string, netip.Addr) (told, bool) { return own, true },
		slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.close(); err != nil {
			t.Error(err)
		}
	}()
	join(g.serf, 3)
	for end := time.Now().Add(30 * time.Second); !strings.Contains(log.String(), "Node name conflicts"); {
		if time.Now().After(end) {
			t.Fatalf("the conflict is not noticed:\n%s", log)
		}
		time.Sleep(time.Millisecond)
	}
	if !strings.Contains(log.String(), "(Resolution enabled: false)") || g.serf.State() != serf.SerfAlive {
		t.Errorf("this host is about to leave, or has left (%v):\n%s", g.serf.State(), log)
	}
}
