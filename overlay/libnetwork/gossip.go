package libnetwork

import (
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"github.com/usernet/usernet/internal/rate"
	"github.com/usernet/usernet/overlay/gossip/streams"
)

// Docker's daemons tell each other by Serf where endpoints are (moby, libnetwork/drivers/overlay/ov_serf.go of
// docker-20.10):
//
//	event  jl VTEP NETWORK ENDPOINT   join|leave ADDRESS MASK MAC
//	query  peerlookup                 NETWORK ADDRESS          answered with MAC MASK VTEP
//
// Nothing of it is signed, and this host believes none of it: it tells and answers, and asks the store itself.
const (
	gossipPort = 7946
	eventPeer  = "jl"
	queryPeer  = "peerlookup"

	maxQuery               = 512 // bytes
	answerRate, answerMost = 1000, 1000
	eventQueue             = 256
	// meetEvery is how often hosts are called again that the gossip does not have.
	meetEvery = 5 * time.Second
)

// gossip is this host's part. Its methods do not wait.
type gossip struct {
	serf   *serf.Serf
	self   netip.Addr
	lookUp func(network string, a netip.Addr) (told, bool)
	log    *slog.Logger
	events chan serf.Event
	limit  rate.Bucket // of answers; one goroutine uses it
	ended  sync.WaitGroup
	stop   chan struct{}

	mu    sync.Mutex // guards hosts and calls
	hosts []netip.Addr
	calls chan struct{} // has something: there are hosts to call
}

// newGossip binds the port, of UDP and TCP.
func newGossip(self netip.Addr, port int, name string, lookUp func(string, netip.Addr) (told, bool),
	log *slog.Logger) (*gossip, error) {
	g := &gossip{self: self, lookUp: lookUp, log: log, events: make(chan serf.Event, eventQueue),
		stop: make(chan struct{}), calls: make(chan struct{}, 1)}
	g.limit.PerSecond, g.limit.Burst = answerRate, answerMost
	cfg := serf.DefaultConfig() // with memberlist's for a LAN, as the daemons have it
	cfg.Init()
	cfg.NodeName, cfg.EventCh = name, g.events
	// With it a member that takes this host's name, and has the majority's votes, would make this host leave.
	cfg.EnableNameConflictResolution = false
	cfg.MemberlistConfig.BindAddr, cfg.MemberlistConfig.BindPort = self.String(), port
	cfg.MemberlistConfig.AdvertiseAddr, cfg.MemberlistConfig.AdvertisePort = self.String(), port
	out := slog.NewLogLogger(log.Handler(), slog.LevelDebug).Writer()
	cfg.LogOutput, cfg.MemberlistConfig.LogOutput = out, out
	t, err := streams.New(&memberlist.NetTransportConfig{
		BindAddrs: []string{self.String()}, BindPort: port, Logger: stdlog.New(out, "", 0),
	})
	var s *serf.Serf
	if err == nil {
		cfg.MemberlistConfig.Transport = t
		g.ended.Go(g.listen)
		s, err = serf.Create(cfg)
	}
	if err != nil {
		close(g.stop)
		g.ended.Wait()
		if t != nil {
			err = errors.Join(err, t.Shutdown())
		}
		return nil, fmt.Errorf("the daemons' gossip comes in at port %d of TCP and UDP: %w", port, err)
	}
	g.serf = s
	g.ended.Go(g.call)
	return g, nil
}

// listen takes what is said.
func (g *gossip) listen() {
	for {
		select {
		case <-g.stop:
			return
		case e := <-g.events:
			if q, is := e.(*serf.Query); is && q.Name == queryPeer {
				g.answer(q)
			}
		}
	}
}

// answer answers where an endpoint of this host is.
func (g *gossip) answer(q *serf.Query) {
	id, a, ok := parsePeerQuery(q.Payload)
	if !ok || !g.limit.Allow(time.Now(), 1) {
		return
	}
	t, is := g.lookUp(id, a)
	if !is {
		return
	}
	if err := q.Respond([]byte(t.endpoint.MAC.String() + " " + maskOf(t.bits) + " " + g.self.String())); err != nil {
		g.log.Debug("a question in the gossip is not answered", "error", err)
	}
}

// parsePeerQuery reads what a daemon asks: where is an address of a network?
func parsePeerQuery(payload []byte) (network string, a netip.Addr, ok bool) {
	if len(payload) > maxQuery {
		return "", netip.Addr{}, false
	}
	words := strings.Fields(string(payload))
	if len(words) != 2 || !isID(words[0]) {
		return "", netip.Addr{}, false
	}
	a, err := netip.ParseAddr(words[1])
	return words[0], a.Unmap(), err == nil
}

// maskOf writes the mask of a subnet as the daemons do.
func maskOf(bits int) string { return net.IP(net.CIDRMask(bits, 32)).String() }

// tell has the daemons know that an endpoint of this host came or left.
func (g *gossip) tell(action string, t told) {
	e := t.endpoint
	name := strings.Join([]string{eventPeer, g.self.String(), e.Network, e.EndpointID}, " ")
	payload := strings.Join([]string{action, e.Addrs[0].String(), maskOf(t.bits), e.MAC.String()}, " ")
	if err := g.serf.UserEvent(name, []byte(payload), true); err != nil {
		g.log.Warn("the other hosts are not told of an endpoint; they ask when they need it", "error", err)
	}
}

// meet has hosts called that the gossip does not have.
func (g *gossip) meet(hosts []netip.Addr) {
	g.mu.Lock()
	g.hosts = hosts
	g.mu.Unlock()
	select {
	case g.calls <- struct{}{}:
	default:
	}
}

// missing are the hosts that the gossip does not have.
func (g *gossip) missing() (list []string) {
	have := map[netip.Addr]bool{g.self: true}
	for _, m := range g.serf.Members() {
		if a, ok := netip.AddrFromSlice(m.Addr); ok && m.Status == serf.StatusAlive {
			have[a.Unmap()] = true
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range g.hosts {
		if !have[a] {
			list = append(list, a.String())
		}
	}
	return list
}

// call calls them, again and again: a gossip that fell apart comes together.
func (g *gossip) call() {
	for {
		var again <-chan time.Time
		if hosts := g.missing(); len(hosts) > 0 {
			// One host's answer has all that it knows. Events of before are not for us.
			if _, err := g.serf.Join(hosts, true); err != nil {
				g.log.Debug("hosts of Docker's networks do not answer in the gossip", "hosts", hosts, "error", err)
			}
			again = time.After(meetEvery)
		}
		select {
		case <-g.stop:
			return
		case <-again:
		case <-g.calls:
			if again != nil { // not more often
				select {
				case <-g.stop:
					return
				case <-again:
				}
			}
		}
	}
}

// close leaves without a word: the others go on to send to this host's endpoints, whose containers live on.
func (g *gossip) close() error {
	err := g.serf.Shutdown()
	close(g.stop)
	g.ended.Wait()
	return err
}
