package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/confine"
	"github.com/usernet/usernet/daemon"
	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/handover"
	"github.com/usernet/usernet/internal/cgroup"
	"github.com/usernet/usernet/internal/ownsocket"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/sandbox"
)

func serveCommand() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon in the foreground",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("host") {
				return errors.New("--host is where other commands find the daemon: say with --socket where it listens")
			}
			if err := o.configure(c.Flags()); err != nil {
				return err
			}
			return serve(o)
		},
	}
	o.flags(c)
	return c
}

// serve runs the daemon until it is told to end, or another daemon has taken its place.
func serve(o serveOptions) error {
	defer shareProcessors()()
	sockio.BusyPoll(o.busyPoll)
	limitGoMemory()
	o.total.Memory = totalMemory(o.total.Memory)
	log, err := logger(o.level, o.format)
	if err != nil {
		return err
	}
	logUnreadVariables(log)
	if err := errors.Join(o.resolvePaths(), o.metrics.check()); err != nil {
		return err
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	measures, err := confine.Parse(o.confine)
	if err != nil {
		return err
	}
	groups, noGroups := cgroup.Take() // first: processes that are started below are in the same cgroup
	r, err := fromManager()
	if err != nil {
		return err
	}
	defer r.set.Close() // which has nothing any more once daemon.New has taken it
	var helper *sandbox.Helper
	if confine.NeedsHelper(measures) {
		// After fromManager, which keeps the sockets that it found from programs started later.
		if helper, err = sandbox.StartHelper(); err != nil {
			return err
		}
		defer helper.Close()
	}
	cfg, err := o.config(log, helper)
	if err != nil {
		return err
	}
	cfg.Cgroups, cfg.NoCgroups = groups, noGroups
	starter, err := startStarter(r.socket(o.socket), o.state)
	if err != nil {
		return err
	}
	defer starter.Close()
	cfg.Starter, cfg.OpenMacvtap = starter, starter.OpenMacvtap
	if o.takeover && r.listener == nil {
		if err := r.takeOver(o.socket, log); err != nil {
			return err
		}
	}
	cfg.Received, cfg.Flows = r.set, r.flows
	if cfg.Watchdog, err = serviceWatchdog(log); err != nil {
		return err
	}
	if store := handover.OpenStore(log, r.stored); store != nil {
		cfg.FDStore = store
	}
	d, err := daemon.New(cfg)
	if err != nil {
		return err
	}
	// Now, so that it is hidden in the first container already; `usernet run` says what is wrong with it.
	_ = os.Mkdir(daemon.JobsDir(o.state), 0o700)
	o.makeNetworks(d, log)
	l := r.listener
	if l == nil {
		if l, err = listen(o.socket); err != nil {
			return errors.Join(err, d.Close())
		}
	}
	if err := noteSocket(o.state, l.Addr().String()); err != nil {
		log.Warn("commands with another XDG_RUNTIME_DIR will not find this daemon", "error", err)
	}
	m, err := o.metrics.serve(d, log, o.takeover)
	if err != nil {
		return errors.Join(err, l.Close(), d.Close())
	}
	defer m.close()
	d.Confine(measures)
	d.StartByPolicy()
	log.Info("usernet is listening", "socket", o.socket, "state", o.state, "version", version, "pid", os.Getpid())
	return serveAPI(d, l, log, signals)
}

// resolvePaths chooses the state's directory and the API's socket where they were not given.
func (o *serveOptions) resolvePaths() (err error) {
	if o.state == "" {
		if o.state, err = stateDir(); err != nil {
			return err
		}
	}
	if o.socket == "" {
		dir, err := runtimeDir()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		o.socket = filepath.Join(dir, "usernet.sock")
	}
	if o.socket, err = filepath.Abs(o.socket); err != nil {
		return err
	}
	o.state, err = filepath.Abs(o.state) // commands elsewhere are told it
	return err
}

// config is the daemon's configuration as the flags say it.
func (o *serveOptions) config(log *slog.Logger, helper *sandbox.Helper) (cfg daemon.Config, err error) {
	split, err := o.resolvers()
	if err != nil {
		return cfg, err
	}
	member, err := o.cluster.config(log)
	if err != nil {
		return cfg, err
	}
	node, err := o.flannel.config()
	if err != nil {
		return cfg, err
	}
	docker, err := o.cluster.dockerConfig()
	if err != nil {
		return cfg, err
	}
	routers, err := o.bgp.config()
	if err != nil {
		return cfg, err
	}
	return daemon.Config{
		Docker:           docker,
		Socket:           o.socket,
		StateDir:         o.state,
		Logger:           log,
		Version:          version,
		Helper:           helper,
		Cluster:          member,
		Flannel:          node,
		BGP:              routers,
		ExitWhenIdle:     o.idle,
		DNS:              o.dns,
		DNSSplit:         split,
		DNSSearch:        o.dnsSearch,
		DNSCache:         o.dnsCache,
		DNSQuestions:     o.dnsQuestions,
		IPv6:             o.ipv6,
		PerContainer:     o.perContainer,
		Limits:           o.total,
		PeerTimeout:      o.peerTimeout,
		NoInboundBypass:  o.noInbound,
		NoOutboundBypass: o.noOutbound,
		NetworkOptions:   o.networkOptions,
	}, nil
}

// serveAPI answers the API's requests at l until the daemon ends, and closes it.
func serveAPI(d *daemon.Daemon, l net.Listener, log *slog.Logger, signals <-chan os.Signal) error {
	s := api.NewServer(d, log)
	s.CheckPeers(d.AllowPeer)
	s.OnAsked(d.DetachLeft)
	s.OnProgram(sandbox.Shared)
	successors := make(chan *handover.Peer)
	s.OnHandover(func(p *handover.Peer) { successors <- p })
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	notify(log, fmt.Sprintf("%s\nMAINPID=%d", sd.SdNotifyReady, os.Getpid()))
	for {
		var err error
		select {
		case sig := <-signals:
			log.Info("ending", "signal", sig.String())
		case <-d.Done():
			log.Info("ending")
		case p := <-successors:
			ended, err := offer(p, l, s, d)
			if !ended {
				log.Error("another daemon wanted to take this one's place, and did not", "error", err)
				continue
			}
			log.Info("ending: another daemon has taken this one's place")
			return err
		case err = <-served:
		}
		notify(log, sd.SdNotifyStopping)
		return errors.Join(err, s.Close(), d.Close())
	}
}

// resolvers checks the servers that were given, and returns those of single domains.
func (o *serveOptions) resolvers() ([]dns.Split, error) {
	var split []dns.Split
	for i, server := range o.dns {
		var err error
		if o.dns[i], err = dns.ParseUpstream(server); err != nil {
			return nil, err
		}
	}
	for _, text := range o.dnsDomains {
		one, err := dns.ParseSplit(text)
		if err != nil {
			return nil, err
		}
		split = append(split, one)
	}
	return split, nil
}

var errInUse = errors.New("another daemon answers at")

// listen binds the socket, and takes a dead daemon's place.
func listen(path string) (net.Listener, error) {
	if len(path) > sockio.MaxPath {
		return nil, fmt.Errorf(
			"socket path %s has %d bytes; %d are possible (unix(7)): choose a shorter one with --socket",
			path,
			len(path),
			sockio.MaxPath,
		)
	}
	if err := daemon.CheckSocketDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	l, err := ownsocket.Listen(path)
	if errors.Is(err, ownsocket.ErrServed) {
		return nil, fmt.Errorf("%w %s: stop it, or choose another --socket", errInUse, path)
	}
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}
