package slirp4netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/autoconf"
	"github.com/usernet/usernet/confine"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/ownsocket"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/runtimes/standalone"
	"github.com/usernet/usernet/sandbox"
	vswitch "github.com/usernet/usernet/switch"
	"github.com/usernet/usernet/switch/tap"
)

// Main is the program: it returns the exit status, slirp4netns's for each case. daemon finds the user's daemon, for
// those who join its networks.
func Main(program, version string, daemon func() (*api.Client, error), args []string, stdout, stderr io.Writer) int {
	o, err := Parse(args)
	switch {
	case err != nil:
		fmt.Fprintln(stderr, err)
		if errors.As(err, new(UsageError)) {
			fmt.Fprint(stdout, Usage(program))
		}
		return 1
	case o.Help:
		fmt.Fprint(stdout, Usage(program))
		return 0
	case o.Version:
		fmt.Fprint(stdout, versionText(version))
		return 0
	}
	for _, w := range o.Warnings {
		fmt.Fprintln(stdout, "WARNING:", w)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if err := Run(context.Background(), o, daemon, stdout, log); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// versionText has the shape that runtimes parse: name and version first. The number of slirp4netns is that whose
// command line this is, and SLIRP_CONFIG_VERSION_MAX that of the libslirp which has all of its options.
func versionText(version string) string {
	return "slirp4netns version 1.3.3+usernet\n" +
		"commit: " + version + "\n" +
		"libslirp: none (usernet)\n" +
		"SLIRP_CONFIG_VERSION_MAX: 6\n"
}

// Run joins the namespace, says that it is ready, and forwards until the exit descriptor hangs up, the namespace is
// gone, or the process is asked to end.
func Run(
	ctx context.Context,
	o *Options,
	daemon func() (*api.Client, error),
	stdout io.Writer,
	log *slog.Logger,
) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	for _, fd := range []int{o.ExitFD, o.ReadyFD} {
		if fd < 0 {
			continue
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return fmt.Errorf("descriptor %d is not open: %w", fd, err)
		}
		unix.CloseOnExec(fd)
	}
	if len(o.Networks) > 0 {
		return o.join(ctx, daemon, stdout, log)
	}
	f, err := o.openTAP(ctx)
	if err != nil {
		return err
	}
	mac, err := tap.HardwareAddr(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	n, err := standalone.Start(o.network(mac, log), f)
	if err != nil {
		return err
	}
	o.report(stdout)
	var guest6 netip.Addr
	if o.IPv6 {
		guest6 = eui64(mac)
	}
	return errors.Join(o.serve(ctx, n, guest6, log), n.Close())
}

// network is what the options ask for.
func (o *Options) network(mac net.HardwareAddr, log *slog.Logger) standalone.Config {
	p := o.Plan
	cfg := standalone.Config{
		Log:          log,
		MTU:          o.MTU,
		Gateways:     []netip.Prefix{netip.PrefixFrom(p.Gateway, p.Network.Bits())},
		HostLoopback: !o.DisableHostLoopback,
		Outbound:     engine.Outbound{Addr4: o.Outbound4, Addr6: o.Outbound6, Loopback: true},
		GuestMAC:     mac,
		Autoconf: &autoconf.Config{
			Subnet4: p.Network,
			Router4: p.Gateway,
			First4:  p.DHCPFirst,
			Last4:   p.DHCPLast,
			MTU:     o.MTU,
		},
	}
	if o.Configure {
		cfg.GuestAddrs = []netip.Addr{p.Guest}
	}
	names := []netip.Addr{p.DNS}
	if o.IPv6 {
		cfg.Gateways = append(cfg.Gateways, netip.PrefixFrom(gateway6, prefix6.Bits()))
		cfg.Autoconf.Prefix6 = prefix6
		names = append(names, dns6)
	}
	if o.DisableDNS {
		cfg.Silent = names
	} else {
		cfg.DNS, cfg.Autoconf.DNS = names, names
	}
	if o.DisableHostLoopback {
		for _, g := range cfg.Gateways {
			cfg.Unreachable = append(cfg.Unreachable, g.Addr())
		}
	}
	return cfg
}

// openTAP returns what frames come from and go to.
func (o *Options) openTAP(ctx context.Context) (*os.File, error) {
	switch {
	case o.TargetType == targetBESS:
		return acceptBESS(ctx, o.Target)
	case o.NetNSType == netnsTAP:
		fd, err := strconv.Atoi(o.Target)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), "tap"), nil
	}
	target, err := o.target()
	if err != nil {
		return nil, err
	}
	i := sandbox.Interface{Name: o.TAP, Offload: true, Given: !o.Configure, Temporary: true}
	r := sandbox.Request{}
	if o.Configure {
		i.MAC = o.MAC
		i.MTU = o.MTU
		i.Addrs = []netip.Prefix{netip.PrefixFrom(o.Plan.Guest, o.Plan.Network.Bits())}
		i.IPv6 = true
		i.Autoconf = true
		r.DefaultRoutes = []sandbox.Route{{
			Dst:       netip.PrefixFrom(netip.IPv4Unspecified(), 0),
			Via:       o.Plan.Gateway,
			Interface: o.TAP,
		}}
		r.Congestion = sandbox.CongestionOf(true)
	}
	r.Add = []sandbox.Interface{i}
	var none *sandbox.Helper // the process enters the namespace itself
	reply, err := none.Configure(ctx, target, r)
	if err != nil {
		return nil, fmt.Errorf("interface %s in the namespace of %s: %w", o.TAP, o.Target, err)
	}
	return reply.TAPs[o.TAP], nil
}

// target is the namespace that the options name.
func (o *Options) target() (sandbox.Target, error) {
	t := sandbox.Target{UserNS: o.UserNSPath}
	if o.NetNSType == netnsPath {
		t.NetNS = o.Target
		return t, nil
	}
	var err error
	t.Pid, err = strconv.Atoi(o.Target)
	return t, err
}

// acceptBESS waits for User Mode Linux to connect to the socket at path, each of whose messages is a frame.
func acceptBESS(ctx context.Context, path string) (*os.File, error) {
	if err := ownsocket.Remove(path); err != nil {
		return nil, err
	}
	if len(path) > sockio.MaxPath {
		return nil, fmt.Errorf("the socket's path %s is too long: %d bytes at most (unix(7))", path, sockio.MaxPath)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("waiting for a connection to %s: %w", path, err)
	}
	defer c.Close()
	return c.File()
}

// report says what the network is, as slirp4netns does.
func (o *Options) report(w io.Writer) {
	p := o.Plan
	fmt.Fprintf(
		w,
		"Starting slirp (usernet)\n* MTU:             %d\n* Network:         %s\n* Gateway:         %s\n* DNS:             %s\n"+
			"* DHCP:            %s to %s\n* Recommended IP:  %s\n",
		o.MTU,
		p.Network,
		p.Gateway,
		p.DNS,
		p.DHCPFirst,
		p.DHCPLast,
		p.Guest,
	)
	if o.APISocket != "" {
		fmt.Fprintf(w, "* API Socket:      %s\n", o.APISocket)
	}
	if !o.DisableHostLoopback {
		fmt.Fprintf(
			w,
			"WARNING: 127.0.0.1:* on the host is accessible as %s (--disable-host-loopback prohibits it)\n",
			p.Gateway,
		)
	}
}

// connection is a network that the namespace is on: one of this process, or the daemon's.
type connection interface {
	Publisher
	// Gone is closed when nothing connects the namespace any more.
	Gone() <-chan struct{}
}

// serve listens on the API socket, tells the caller that all is ready, and waits for the end.
func (o *Options) serve(ctx context.Context, n connection, guest6 netip.Addr, log *slog.Logger) error {
	var api sync.WaitGroup
	defer api.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.APISocket != "" {
		l, err := listenAPI(o.APISocket)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = l.Close() })
		h := &hostfwd{publisher: n, guest: o.Plan.Guest, guest6: guest6, log: log}
		api.Go(func() { h.serve(ctx, l) })
	}
	o.confine(log)
	if o.ReadyFD >= 0 {
		ready := os.NewFile(uintptr(o.ReadyFD), "ready")
		_, err := ready.Write([]byte("1"))
		if err = errors.Join(err, ready.Close()); err != nil {
			return fmt.Errorf("ready descriptor %d: %w", o.ReadyFD, err)
		}
	}
	hangup := make(chan struct{})
	if o.ExitFD >= 0 {
		go func() { // it ends with the process, as nothing can end a poll(2) of a pipe that somebody else holds
			waitForEvent(o.ExitFD)
			close(hangup)
		}()
	}
	select {
	case <-ctx.Done():
	case <-hangup:
		log.Info("the exit descriptor hung up")
	case <-n.Gone():
	}
	return nil
}

// listenAPI listens at path, for this user alone; a socket that an earlier process left there goes.
func listenAPI(path string) (net.Listener, error) {
	if len(path) > sockio.MaxPath {
		return nil, fmt.Errorf("API socket: the path %s is too long: %d bytes at most (unix(7))", path, sockio.MaxPath)
	}
	err := ownsocket.Remove(path) // slirp4netns replaces one that is served, too
	if err == nil {
		var l net.Listener
		if l, err = ownsocket.Listen(path); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("API socket: %w", err)
}

// waitForEvent returns when poll(2) has anything to say about fd: a hang-up, mostly.
func waitForEvent(fd int) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, -1)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// eui64 is the address that the guest makes of the advertised prefix (RFC 4862, RFC 4291 appendix A).
func eui64(mac net.HardwareAddr) netip.Addr {
	b := prefix6.Addr().As16()
	suffix := vswitch.LinkLocal(mac).As16()
	copy(b[8:], suffix[8:])
	return netip.AddrFrom16(b)
}

// confine takes from the process what it does not need any more, where the caller asked for that.
func (o *Options) confine(log *slog.Logger) {
	var measures []confine.Measure
	if o.Sandbox {
		measures = append(measures, confine.NoNewPrivileges, confine.Landlock)
		if len(o.Networks) == 0 { // else the daemon could not see who asks it, nor routes be set again for a new daemon
			measures = append(measures, confine.NotDumpable)
			o.dropCapabilities(log)
		}
	}
	if o.Seccomp {
		measures = append(measures, confine.Seccomp)
	}
	paths := confine.Paths{Read: []string{"/proc", "/etc", "/run"}}
	if o.APISocket != "" {
		paths.Write = []string{filepath.Dir(o.APISocket)}
	}
	_, warnings := confine.Daemon.With(measures).Apply(paths) // it does what the daemon does
	for _, w := range warnings {
		log.Warn(w.Error())
	}
}

// dropCapabilities leaves what slirp4netns keeps: to bind ports below 1024 where the caller's user namespace allows it.
func (o *Options) dropCapabilities(log *slog.Logger) {
	if err := confine.KeepCapabilities(unix.CAP_NET_BIND_SERVICE); err != nil {
		log.Warn(err.Error())
	}
}
