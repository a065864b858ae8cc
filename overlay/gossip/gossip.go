package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// DefaultPort is where hosts listen for each other, TCP and UDP: memberlist's.
const DefaultPort = 7946

// Times, where Config does not say otherwise.
const (
	rejoinEvery = time.Minute
	// objections is how long a claim waits for them: a broadcast reaches 1,000 hosts within a second (docs/overlay.md).
	objections = 2 * time.Second
	// alone is how long a host without an answer from any seed waits until it takes itself for the first one.
	alone = 5 * time.Second
	// settle is how long a host that has paths waits until it joins again for the first time, and then twice as long
	// each time up to Rejoin: behind a NAT it hears no broadcast before its path to another host stands, and that needs
	// a record which the other may not have had yet when it was joined.
	settle = time.Second
	// lonely is the longest wait between two times that a host without others joins.
	lonely = 5 * time.Second
	// retransmit times the decimal logarithm of the number of hosts is how often each host sends a broadcast: 9 times
	// among 1,000. A host that no copy reaches has the row after the next comparison.
	retransmit = 3
	// buryEvery is how often old tombstones are forgotten.
	buryEvery = time.Minute
)

// Config is what a Backend needs. Zero values of times are the defaults.
type Config struct {
	Host        overlay.HostID
	Incarnation uint64
	Keys        [][]byte // ParseKeys
	Seeds       []string // HOST[:PORT]; this host itself may be among them
	// Bind is where to listen, and Advertise where others reach this host; its port may be 0: the one that is listened
	// on.
	Bind, Advertise netip.AddrPort
	Rejoin          time.Duration // between two times that all seeds are joined
	Objections      time.Duration // that a claim waits
	Alone           time.Duration // until a host that no seed answers goes on without
	Log             *slog.Logger
	// Paths are ways to hosts that no socket reaches; nil: there are none. Close closes them.
	Paths Paths
	// Shared is for simulations: hosts of one process have what they know in common; nil: each its own.
	Shared *Shared
	// Transport is for tests; nil: sockets on Bind.
	Transport memberlist.Transport
	// tune changes memberlist's settings, for tests.
	tune func(*memberlist.Config)
}

// Backend is a table.Backend. New makes one.
type Backend struct {
	config Config
	name   string // of this member: the host's id and incarnation
	log    *lines
	list   *memberlist.Memberlist
	queue  *memberlist.TransmitLimitedQueue
	jobs   chan job

	ctx  context.Context // done by Close
	stop context.CancelFunc
	all  sync.WaitGroup // goroutines

	behind  atomic.Int32 // for how many seconds to catch up
	members atomic.Int64 // len(mu.members); memberlist's queue of broadcasts asks for it while rows are queued under mu

	wake     chan struct{} // has room for one: pending, or whether there is a list, has changed
	watching sync.Mutex    // held while Watch runs

	mu struct {
		sync.Mutex
		state    *state
		pending  map[string]bool // keys whose rows Watch has to yield
		digested time.Time       // when another host's digest was last compared with this one's
		members  map[string]*memberlist.Node
		alive    map[overlay.HostID][]uint64 // incarnations of members, ascending
		compared bool                        // with another host's digest
		alone    bool                        // no seed answered in time
		joined   time.Time                   // when members became what Connected says
		joinErr  error
		bad      int // malformed messages
	}
}

var _ table.Backend = (*Backend)(nil)

// New makes a Backend and begins to listen, and to join the seeds until Close.
func New(config Config) (*Backend, error) {
	if len(config.Keys) == 0 {
		return nil, errors.New("a cluster without a store needs a key")
	}
	config.Rejoin = cmpOr(config.Rejoin, rejoinEvery)
	config.Objections = cmpOr(config.Objections, objections)
	config.Alone = cmpOr(config.Alone, alone)
	if config.Log == nil {
		config.Log = slog.Default()
	}
	b := &Backend{
		config: config, name: memberName(config.Host, config.Incarnation), log: &lines{log: config.Log},
		jobs: make(chan job, maxJobs), wake: make(chan struct{}, 1),
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.mu.state, b.mu.pending = newState(config.Shared), map[string]bool{}
	b.mu.members, b.mu.alive = map[string]*memberlist.Node{}, map[overlay.HostID][]uint64{}
	b.mu.joined = time.Now()
	b.mu.digested = b.mu.joined
	settings, err := b.settings()
	if err != nil {
		return nil, err
	}
	b.queue = &memberlist.TransmitLimitedQueue{NumNodes: b.numMembers, RetransmitMult: retransmit}
	if b.list, err = memberlist.Create(settings); err != nil {
		b.stop()
		if t, is := settings.Transport.(*transport); is {
			err = errors.Join(err, t.Shutdown())
		}
		return nil, fmt.Errorf("cluster: listen on %s: %w", config.Bind, err)
	}
	b.all.Go(b.work)
	b.all.Go(b.join)
	b.all.Go(b.bury)
	b.all.Go(b.catchUp)
	return b, nil
}

func cmpOr(d, or time.Duration) time.Duration {
	if d == 0 {
		return or
	}
	return d
}

// settings are memberlist's: those for LANs, with half the probes, since data has probes of its own (package fabric).
func (b *Backend) settings() (*memberlist.Config, error) {
	c := memberlist.DefaultLANConfig()
	keyring, err := memberlist.NewKeyring(b.config.Keys, b.config.Keys[0])
	if err != nil {
		return nil, err
	}
	c.Name, c.Keyring = b.name, keyring
	c.ProbeInterval, c.ProbeTimeout = 2*time.Second, time.Second
	c.TCPTimeout = table.CallTimeout
	c.EnableCompression = false // LZW, which takes a processor longer than a network takes for what it saves
	c.Delegate, c.Events = (*delegate)(b), (*delegate)(b)
	c.Logger = log.New(b.log, "", 0)
	c.Transport = b.config.Transport
	if c.Transport == nil {
		if c.Transport, err = b.listen(c.Logger); err != nil {
			return nil, err
		}
	}
	if b.config.Transport == nil {
		c.BindAddr, c.BindPort = b.config.Bind.Addr().String(), int(b.config.Bind.Port())
		if a := b.config.Advertise; a.IsValid() {
			c.AdvertiseAddr, c.AdvertisePort = a.Addr().String(), int(a.Port())
		}
		if c.AdvertisePort == 0 {
			c.AdvertisePort = c.BindPort
		}
	}
	if b.config.tune != nil {
		b.config.tune(c)
	}
	return c, nil
}

// listen listens on sockets and paths. The port is what the sockets got.
func (b *Backend) listen(logger *log.Logger) (memberlist.Transport, error) {
	t, err := newTransport(b.config.Bind, b.config.Paths, logger)
	if err != nil {
		return nil, err
	}
	b.config.Bind = netip.AddrPortFrom(b.config.Bind.Addr(), uint16(t.GetAutoBindPort()))
	return t, nil
}

// bury forgets old tombstones.
func (b *Backend) bury() {
	ticks := time.NewTicker(buryEvery)
	defer ticks.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case now := <-ticks.C:
			b.mu.Lock()
			b.mu.state.bury(now)
			b.mu.Unlock()
		}
	}
}

// Addr is where this host listens.
func (b *Backend) Addr() netip.AddrPort {
	n := b.list.LocalNode()
	a, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(a.Unmap(), n.Port)
}

// URL names a cluster without a store, for people.
func (b *Backend) url() string {
	if len(b.config.Seeds) == 0 {
		return "gossip://" + b.Addr().String()
	}
	return "gossip://" + b.config.Seeds[0]
}

// Health implements table.Backend.
func (b *Backend) Health() table.Health {
	url := b.url()
	b.mu.Lock()
	defer b.mu.Unlock()
	h := table.Health{URL: url, Connected: len(b.mu.members) > 1, Since: b.mu.joined, Err: b.mu.joinErr}
	if !h.Connected && len(b.config.Seeds) == 0 {
		h.Connected = true // the first host, alone
	}
	if h.Err != nil && h.Connected {
		h.Notes = append(h.Notes, fmt.Sprintf("a seed cannot be joined: %v", h.Err))
	}
	if n := b.log.wrongKey.Load(); n > 0 {
		h.Notes = append(
			h.Notes,
			fmt.Sprintf(
				"%d messages were sealed with another key and dropped: is --cluster-key the same file on all hosts?",
				n,
			),
		)
	}
	if n := b.mu.bad; n > 0 {
		h.Notes = append(h.Notes, fmt.Sprintf("%d messages made no sense and were dropped", n))
	}
	if n := b.mu.state.full; n > 0 {
		h.Notes = append(h.Notes, fmt.Sprintf("%d rows were not taken: %d rows are the most", n, maxRows))
	}
	return h
}

// Stats are counts.
type Stats struct {
	Members int    // that are alive, this host among them
	Rows    int    // registers, tombstones too
	Digest  uint64 // of all registers: two hosts with the same one have the same rows
}

// Stats counts what there is.
func (b *Backend) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Stats{Members: len(b.mu.members), Rows: b.mu.state.rows}
	for i, d := range b.mu.state.digest {
		s.Digest = mix(s.Digest ^ d ^ uint64(i))
	}
	return s
}

// Close implements table.Backend.
func (b *Backend) Close() error {
	if b.ctx.Err() != nil {
		return nil
	}
	b.stop()
	b.wakeWatch()
	b.watching.Lock()
	defer b.watching.Unlock()
	if err := b.list.Leave(leaveTimeout); err != nil {
		b.config.Log.Debug("cluster: the others are not told that this host leaves; they find out", "error", err)
	}
	b.all.Wait()
	return b.list.Shutdown()
}

// leaveTimeout bounds how long a host that ends waits until another one has heard of it.
const leaveTimeout = time.Second

// memberName is a member's: two daemons with one host id are two members, and so are two lives of one.
func memberName(host overlay.HostID, incarnation uint64) string {
	return string(host) + "-" + strconv.FormatUint(incarnation, 16)
}
