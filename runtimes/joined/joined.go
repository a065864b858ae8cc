package joined

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// Variables of the environment. A runtime hands them on to the programs that it calls.
const (
	networkVariable = "USERNET_NETWORK" // names of networks, with commas between them
	nameVariable    = "USERNET_NAME"    // of the container; "": one is drawn
)

// Networks are those that an option's value names, or else the environment; none: the place forwards itself.
func Networks(option string) []string {
	if option == "" {
		option = os.Getenv(networkVariable)
	}
	var names []string
	for name := range strings.SplitSeq(option, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Name is the container's: an option's value, or else what the environment says; "": one is drawn.
func Name(option string) string {
	if option == "" {
		option = os.Getenv(nameVariable)
	}
	return option
}

// Config says what to join. Daemon, Networks and NetNS are needed.
type Config struct {
	Daemon   func() (*api.Client, error) // finds the user's daemon, also one that has come later
	Log      *slog.Logger
	NetNS    *os.File // the namespace; Join owns it
	Networks []string // the first has the default route
	Name     string   // of the container; "": one is drawn
	// Interface is the first network's in the namespace, with MAC as its address; "" and nil: the daemon chooses.
	Interface string
	MAC       net.HardwareAddr
	// DNSAddr is where the namespace finds its name server; invalid: at 127.0.0.11.
	DNSAddr netip.Addr
	// LocalAddrs are what the runtime takes for the container's addresses, whatever the daemon gives it.
	LocalAddrs []netip.Addr
	// CallerAddrs are what the runtime takes for the container's addresses and sets itself, on an interface of its own.
	CallerAddrs []netip.Addr
}

// Attachment is a namespace on the daemon's networks. Its methods may be called by many goroutines at once.
type Attachment struct {
	cfg    Config
	key    string
	cancel context.CancelFunc
	gone   chan struct{} // closed when the daemon says that the attachment has ended, and after Close

	now struct {
		sync.Mutex
		container network.Container
		ports     map[int][]network.PortBinding // what is to be published, by numbers in order
		last      int                           // of these
	}
}

// Join attaches the namespace. The daemon has to run: it is not started, since the networks are its.
func Join(ctx context.Context, cfg Config) (*Attachment, error) {
	a := &Attachment{cfg: cfg, key: "place-" + rand.Text(), gone: make(chan struct{})}
	a.now.ports = map[int][]network.PortBinding{}
	if err := a.attach(ctx); err != nil {
		return nil, errors.Join(
			fmt.Errorf("joining the network %s of usernet's daemon: %w", strings.Join(cfg.Networks, ", "), err),
			cfg.NetNS.Close(),
		)
	}
	ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go a.follow(ctx)
	return a, nil
}

// attach asks the daemon for the interfaces. It may be repeated.
func (a *Attachment) attach(ctx context.Context) error {
	c, err := a.cfg.Daemon()
	if err != nil {
		return err
	}
	defer c.CloseIdle()
	q := api.AttachRequest{Key: a.key, Holder: os.Getpid(), Spec: network.ContainerSpec{
		Name:       a.cfg.Name,
		DNSAddr:    a.cfg.DNSAddr,
		LocalAddrs: a.cfg.LocalAddrs,
	}}
	for i, name := range a.cfg.Networks {
		e := network.NamedEndpointSpec{Network: name}
		e.GwPriority = len(a.cfg.Networks) - i
		if i == 0 {
			e.Interface = a.cfg.Interface
			copy(e.MAC[:], a.cfg.MAC)
		}
		q.Spec.Networks = append(q.Spec.Networks, e)
	}
	q.Spec.NetworkMode = a.cfg.Networks[0]
	a.now.Lock()
	defer a.now.Unlock()
	for _, n := range slices.Sorted(maps.Keys(a.now.ports)) {
		q.Spec.Ports = append(q.Spec.Ports, a.now.ports[n]...)
	}
	made, err := c.Attach(ctx, q, a.cfg.NetNS)
	if err == nil {
		a.now.container = made.Container
	}
	return err
}

// retryEvery is how often a daemon is looked for that does not answer.
const retryEvery = 200 * time.Millisecond

// follow waits until the daemon says that the container has ended, and attaches it again where the daemon itself has.
func (a *Attachment) follow(ctx context.Context) {
	defer close(a.gone)
	for {
		err := a.wait(ctx)
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, api.ErrDaemonEnded) && !errors.Is(err, api.ErrNoDaemon) {
			a.cfg.Log.Info("usernet's daemon has ended the attachment", "error", err)
			return
		}
		for told := false; ; told = true {
			err := a.attach(ctx)
			if err == nil {
				a.cfg.Log.Info("attached again to usernet's daemon")
				break
			}
			if !told {
				a.cfg.Log.Warn("usernet's daemon is away: the network is back when it is", "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(retryEvery):
			}
		}
	}
}

// wait returns nil when the container has ended.
func (a *Attachment) wait(ctx context.Context) error {
	c, err := a.cfg.Daemon()
	if err != nil {
		return err
	}
	defer c.CloseIdle()
	return c.ContainerWaitOnce(ctx, a.container().ID)
}

func (a *Attachment) container() network.Container {
	a.now.Lock()
	defer a.now.Unlock()
	return a.now.container
}

// Container is what stands for the namespace in the daemon.
func (a *Attachment) Container() network.Container { return a.container() }

// Gone is closed when the attachment has ended: somebody detached the container, or Close was called.
func (a *Attachment) Gone() <-chan struct{} { return a.gone }

// Publish forwards a host port to the container until it is unpublished. proto is tcp or udp. The guest's address has
// to be one of the container's.
func (a *Attachment) Publish(
	ctx context.Context,
	proto string,
	host, guest netip.AddrPort,
) (unpublish func() error, err error) {
	if !a.has(guest.Addr()) {
		return nil, fmt.Errorf(
			"%s is not an address of the container, and the daemon publishes its ports only",
			guest.Addr(),
		)
	}
	b := network.PortBinding{
		HostIP:   host.Addr(),
		HostPort: host.Port(),
		HostEnd:  host.Port(),
		Port:     guest.Port(),
		End:      guest.Port(),
		Proto:    network.Protocol(proto),
	}
	return a.PublishAll(ctx, []network.PortBinding{b})
}

// has says whether an address is the container's, also as the runtime knows it.
func (a *Attachment) has(addr netip.Addr) bool {
	c := a.container()
	return slices.Contains(a.cfg.LocalAddrs, addr) || slices.Contains(a.cfg.CallerAddrs, addr) ||
		slices.ContainsFunc(c.Endpoints, func(e *network.Endpoint) bool {
			return e.IPv4.Addr() == addr || e.IPv6.Addr() == addr
		})
}

// PublishAll publishes ports until they are unpublished: all of them, or with an error none.
func (a *Attachment) PublishAll(ctx context.Context, ports []network.PortBinding) (unpublish func() error, err error) {
	c, err := a.cfg.Daemon()
	if err != nil {
		return nil, err
	}
	defer c.CloseIdle()
	a.now.Lock()
	defer a.now.Unlock()
	if _, err := c.PortsAdd(ctx, a.now.container.ID, ports); err != nil {
		return nil, err
	}
	a.now.last++
	n := a.now.last
	a.now.ports[n] = ports
	return func() error { return a.unpublish(n, ports) }, nil
}

func (a *Attachment) unpublish(n int, ports []network.PortBinding) error {
	a.now.Lock()
	defer a.now.Unlock()
	delete(a.now.ports, n)
	c, err := a.cfg.Daemon()
	if err != nil {
		return err
	}
	defer c.CloseIdle()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return c.PortsRemove(ctx, a.now.container.ID, ports)
}

// closeTimeout bounds a request at the end, in which nobody waits long for a network.
const closeTimeout = 5 * time.Second

// Close takes the namespace off the networks. A daemon that is away is no error: it notices the end of this process.
func (a *Attachment) Close() error {
	a.cancel()
	<-a.gone
	defer a.cfg.NetNS.Close()
	c, err := a.cfg.Daemon()
	if err != nil {
		return err
	}
	defer c.CloseIdle()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := c.Detach(ctx, a.key); !errors.Is(err, api.ErrNoDaemon) {
		return err
	}
	return nil
}
