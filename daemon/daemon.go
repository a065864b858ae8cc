package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/handover"
	"github.com/usernet/usernet/internal/cgroup"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/openmetrics"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/internal/watchdog"
	"github.com/usernet/usernet/names"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/network/boltstore"
	"github.com/usernet/usernet/overlay/bgp"
	"github.com/usernet/usernet/overlay/cluster"
	"github.com/usernet/usernet/overlay/flannel"
	"github.com/usernet/usernet/overlay/libnetwork"
	"github.com/usernet/usernet/overlay/static"
	"github.com/usernet/usernet/overlay/uplink"
	"github.com/usernet/usernet/overlay/uplink/dhcp"
	"github.com/usernet/usernet/sandbox"
)

var _ api.Backend = (*Daemon)(nil)

// Config says how a daemon is to run. The zero value of each field but StateDir works.
type Config struct {
	Socket   string // where the API listens; only reported by Info
	StateDir string // holds the store and a directory for each container; made with mode 0700
	Logger   *slog.Logger
	Version  string
	// ExitWhenIdle closes Done after this long without a running container. Zero: never.
	ExitWhenIdle time.Duration
	DNS          []string    // upstream servers instead of the host's own
	ResolvConf   string      // "" means /etc/resolv.conf
	DNSCache     int         // answers from outside that are kept; 0: none
	DNSQuestions int         // being asked outside, of each container; 0 means dns.DefaultQuestions
	DNSSearch    []string    // search domains instead of the host's
	DNSSplit     []dns.Split // the servers of some domains
	IPv6         bool        // new networks have IPv6 unless they say otherwise
	// NetworkOptions are options that new networks get unless they have them, or take all from another network.
	NetworkOptions   map[string]string
	NoInboundBypass  bool             // connections to published ports go through the gateways always
	NoOutboundBypass bool             // so do those that containers open
	Limits           forwarder.Limits // on all containers together; 0 does not limit
	// How long a connection may wait for a peer outside that is gone; 0: as long as the kernel has it.
	PeerTimeout  time.Duration
	PerContainer forwarder.Limits // on each container; the zero value means forwarder.DefaultLimits
	// FDStore stores copies of what has to stay open while no daemon runs: sockets of published ports, TAPs, DNS stubs.
	// Nil: nothing does.
	FDStore handover.Sink
	// Received are the descriptors that the service manager or the daemon before has left to this one; New owns them.
	// The API's listener is not among them.
	Received *handover.Set
	Flows    []handover.Flow // connections that the daemon before has let go of; New owns them
	// Helper enters sandboxes for a daemon that will confine itself; nil: the daemon does it itself. Its owner closes
	// it.
	Helper *sandbox.Helper
	// Starter starts containers again; nil: none is. Its owner closes it.
	Starter Starter
	// OpenMacvtap opens a macvtap of this user's that was made after Confine, by its name; the file is the caller's.
	// Nil: such ones stay closed.
	OpenMacvtap func(name string) (*os.File, error)
	// Cgroups has the cgroups of containers with limits; nil: there are none, because of NoCgroups.
	Cgroups   *cgroup.Tree
	NoCgroups error
	// Cluster is how this host is a member of a cluster; nil: it is in none. Dir, Logger, Version, Changed and Event
	// are the daemon's to set.
	Cluster *cluster.Config
	// Flannel is how this host is a node of a flannel network; nil: it is none. Dir and Logger are the daemon's to set.
	Flannel *flannel.Options
	// Docker is how this host is beside Docker's daemons with a key-value store, where Cluster is nil; nil: it is not.
	// Dir, Logger and Changed are the daemon's to set.
	Docker *libnetwork.Config
	// BGP is how routers are spoken to; nil: they are not. Logger and Changed are the daemon's to set.
	BGP *bgp.Config
	// Watchdog says who is told that no part of the daemon hangs, and how often. Its Logger is this one's.
	Watchdog watchdog.Config
}

// Daemon is one running daemon. Make it with New, end it with Close.
type Daemon struct {
	cfg      Config
	log      *slog.Logger
	model    *network.Model
	dns      *dns.Server
	upstream *dns.Upstreams
	names    *names.Table
	later    laterDir
	policyMu sync.Mutex // held from reading records to changing what decides about neighbours
	namesMu  sync.Mutex // held from reading a record to changing names, so that what is stored last is the latest
	events   *eventLog
	watchdog *watchdog.Watchdog
	shared   *forwarder.Shared // host ports and limits, over all networks
	started  time.Time
	ping4    bool
	confined confinement

	sandboxes sandboxes // cfg.Helper
	attaching turns
	execs     execs
	drivers   []Driver
	member    membership       // nil: this host is alone
	cluster   *cluster.Cluster // member, where that is a cluster
	static    *static.Set      // networks with static peers
	flannel   *flannel.Node    // nil: this host is none
	uplinks   *uplink.Set      // physical networks
	announced sync.Map         // where containers hear of name servers there: []announced by their ids
	bgp       *routing         // nil: the daemon speaks to no router
	importing sync.Mutex       // held while the model's networks are made equal to the members'
	captures  captures
	starts    openmetrics.Histogram // how long containers' starts took
	oom       *fsnotify.Watcher     // of containers' memory; nil: there is none

	ctx    context.Context // ends when Close begins
	cancel context.CancelFunc
	done   chan struct{} // closed when an end was asked for

	serving chan struct{} // closed by StartByPolicy: the API answers

	ask sync.Once
	wg  sync.WaitGroup // watches and TAP readers

	mu       sync.Mutex             // guards the rest
	bridges  map[string]*bridgeSlot // by network id
	runtimes map[string]*containerRuntime
	idle     *time.Timer // runs while no container does; nil where ExitWhenIdle is zero
}

// New opens the state, makes what was running run again, and returns the daemon.
// It fails with network.ErrLocked where another daemon holds the state.
func New(cfg Config) (*Daemon, error) {
	received := takeReceived(&cfg)
	defer received.close()
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if err := checkStateDir(cfg.StateDir); err != nil {
		return nil, err
	}
	if err := sockio.RaiseFileLimit(); err != nil {
		cfg.Logger.Warn("limit on open files not raised", "error", err)
	}
	store, err := boltstore.Open(filepath.Join(cfg.StateDir, "usernet.db"))
	if errors.Is(err, network.ErrLocked) {
		return nil, err
	}
	if err != nil {
		return nil, errdefs.About(errdefs.TopicState, err)
	}
	d := &Daemon{
		cfg:       cfg,
		log:       cfg.Logger,
		events:    newEventLog(),
		started:   time.Now(),
		sandboxes: cfg.Helper,
		done:      make(chan struct{}),
		serving:   make(chan struct{}),
		execs:     execs{byID: map[string]*execution{}},
	}
	if err = d.openMember(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if d.bgp, err = openRouting(cfg.BGP, d.log); err != nil {
		return nil, errors.Join(err, d.closeMember(), store.Close())
	}
	d.static, d.uplinks = static.New(d.log), uplink.NewSet(d.log, cfg.OpenMacvtap)
	if d.flannel, err = d.openFlannel(); err != nil {
		d.bgp.close()
		return nil, errors.Join(err, d.closeMember(), store.Close())
	}
	d.drivers = drivers(d.member, d.bgp, d.static, d.flannel, d.uplinks,
		func() []*network.Network { return d.model.Networks() },
		func(endpoint string, l dhcp.Lease) { // not here: whose goroutine it is may be waited for
			d.wg.Go(func() { d.renumber(endpoint, l) })
		}, func(networkID string, vlan uint16) { d.wg.Go(func() { d.followRouters(networkID, vlan) }) })
	d.model, err = network.Open(store, network.Options{
		HostRoutes:  hostRoutes,
		DefaultIPv6: cfg.IPv6,
		Allocators:  allocators(d.drivers),
	})
	if err != nil {
		d.bgp.close()
		return nil, errors.Join(err, d.closeMember(), d.closeFlannel(), store.Close())
	}
	if err := store.SaveCopy(); err != nil {
		cfg.Logger.Warn("if the state is damaged it cannot be put back", "error", err)
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.names, d.shared = names.NewTable(), forwarder.NewShared(cfg.Limits, cfg.PerContainer)
	d.bridges, d.runtimes = map[string]*bridgeSlot{}, map[string]*containerRuntime{}
	d.adoptAddresses()
	d.resumeLeases()
	d.updateSubnets()
	d.shared.SetPeerTimeout(cfg.PeerTimeout)
	d.addReceivedPorts(received)
	d.startDNS()
	d.cfg.Watchdog.Logger = d.log
	d.startWatchdog()
	d.checkPing()
	if cfg.ExitWhenIdle > 0 {
		d.idle = time.AfterFunc(cfg.ExitWhenIdle, d.Shutdown)
	}
	d.restore(received)
	d.detachLeftFirst()
	d.openCgroups()
	d.resumeFlows(received.takeFlows())
	d.shared.CloseAdopted()
	d.startMember()
	return d, nil
}

// checkStateDir makes dir where it is missing, and refuses one that others could change.
func checkStateDir(dir string) error {
	if dir == "" {
		return errors.New("no state directory: give one with --state-dir")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state directory %s cannot be made: %w; choose another with --state-dir", dir, err)
	}
	return checkOwned(dir)
}

// checkPing says once what the machine lacks for pinging beyond the gateway.
func (d *Daemon) checkPing() {
	d.ping4, _ = forwarder.PingAvailable()
	if !d.ping4 {
		d.log.Warn("containers can ping their gateway and each other but nothing beyond: " + pingHint)
	}
}

const pingHint = "ping sockets are not allowed for this user; allow them with: " +
	"sysctl net.ipv4.ping_group_range=\"0 2147483647\""

// Done is closed when the daemon should end: Shutdown was called, or it was idle for long enough.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Shutdown asks for the end; the owner of the daemon then calls Close.
func (d *Daemon) Shutdown() { d.ask.Do(func() { close(d.done) }) }

// Close ends everything the daemon runs and waits for it. Containers go on without a network until
// a daemon with the same state takes them up again; their addresses stay reserved.
func (d *Daemon) Close() error {
	d.Shutdown()
	d.shared.SetFDStore(nil) // what is closed now is to be there for the next daemon
	d.mu.Lock()
	if d.idle != nil {
		d.idle.Stop()
	}
	d.mu.Unlock()
	d.cancel()
	all := d.allRuntimes()
	for _, s := range all { // before the first one closes, so that what was read finds its port
		s.mu.Lock()
		s.quiesce()
		s.mu.Unlock()
	}
	for _, s := range all {
		s.mu.Lock()
		d.teardown(s)
		s.mu.Unlock()
	}
	errs := append(d.closeBridges(), d.closeMember(), d.closeFlannel())
	if d.oom != nil {
		errs = append(errs, d.oom.Close())
	}
	d.uplinks.Close()
	d.bgp.close()
	errs = append(errs, d.dns.Close(), d.upstream.Close(), d.shared.Close(), d.watchdog.Close())
	d.wg.Wait()
	errs = append(errs, d.model.Close())
	return errors.Join(errs...)
}

// updateIdleTimer starts or stops the idle timer, after a container started or ended.
func (d *Daemon) updateIdleTimer() {
	if d.cfg.ExitWhenIdle <= 0 {
		return
	}
	running := d.model.FirstName(network.NotEnded) != ""
	d.mu.Lock()
	defer d.mu.Unlock()
	if running {
		d.idle.Stop()
	} else {
		d.idle.Reset(d.cfg.ExitWhenIdle)
	}
}
