package libnetwork

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	dockernet "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/internal/ownsocket"
	"github.com/usernet/usernet/network"
)

const (
	callLimit = 30 * time.Second // dockerd waits, with locks held
	maxBody   = 1 << 20          // bytes of a request
	// contentType is what plugins of Docker answer with.
	contentType = "application/vnd.docker.plugins.v1.2+json"
)

// daemon is what the plugin needs of usernet's; *api.Client has it.
type daemon interface {
	Network(ctx context.Context, ref string) (dockernet.Inspect, error)
	Networks(ctx context.Context, f api.Filters) ([]dockernet.Summary, error)
	NetworkCreate(ctx context.Context, spec network.NetworkSpec) (api.CreatedNetwork, error)
	NetworkRemove(ctx context.Context, ref string) error
	Attach(ctx context.Context, q api.AttachRequest, netns *os.File) (api.AttachReply, error)
	Attachments(ctx context.Context, prefix string) ([]network.Container, error)
	Detach(ctx context.Context, key string) error
	ContainerRename(ctx context.Context, ref, name string) error
	PortsAdd(ctx context.Context, ref string, ports []network.PortBinding) ([]api.Published, error)
	PortsRemove(ctx context.Context, ref string, ports []network.PortBinding) error
}

// Config says what a plugin serves. Dir, State and Daemon are needed, and Answering with Docker.
type Config struct {
	Dir   string // of the sockets
	State string // file
	// Docker is the socket of Docker's API, where containers' names are asked for; "": nowhere.
	Docker string
	// Daemon is usernet's; it starts one where none answers.
	Daemon func(context.Context) (*api.Client, error)
	// Answering is the daemon where there is one, for names: they are no reason to start one.
	Answering func() (*api.Client, error)
	Log       *slog.Logger
}

// Plugin serves the drivers.
type Plugin struct {
	daemon  func(context.Context) (daemon, error)
	state   *state
	pending pending // addresses
	namer   *namer  // nil: names are not asked for
	log     *slog.Logger
	netns   func(pid int) (*os.File, error)

	greeting sync.Mutex // held while a dockerd is seen for the first time

	servers []*http.Server
	served  sync.WaitGroup
}

// drivers are the names under which Docker knows the plugin, with the drivers of the daemon's networks.
var drivers = map[string]string{"usernet": network.DriverBridge, "usernet-overlay": network.DriverOverlay}

// Drivers are the names of the drivers, each of which is that of a socket in Config.Dir with ".sock" added.
func Drivers() []string { return []string{"usernet", "usernet-overlay"} }

// Start listens on the sockets, and answers until Close.
func Start(cfg Config) (*Plugin, error) {
	s, err := openState(cfg.State)
	if err != nil {
		return nil, err
	}
	p := &Plugin{
		daemon: func(ctx context.Context) (daemon, error) { return cfg.Daemon(ctx) },
		state:  s,
		log:    cfg.Log,
		netns:  callersNamespace,
	}
	if cfg.Docker != "" {
		p.namer = newNamer(cfg.Docker, func(context.Context) (daemon, error) { return cfg.Answering() }, cfg.Log)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	for _, name := range Drivers() {
		l, err := ownsocket.Listen(filepath.Join(cfg.Dir, name+".sock"))
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.serve(l, drivers[name])
	}
	return p, nil
}

// serve answers on l, for networks of a driver of the daemon's.
func (p *Plugin) serve(l net.Listener, driver string) {
	server := &http.Server{
		Handler:           p.handler(driver),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		ConnContext:       withCaller,
	}
	p.servers = append(p.servers, server)
	p.served.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("plugin's socket", "socket", l.Addr(), "error", err)
		}
	})
}

// Close waits for calls that are being answered, for a moment, and takes the sockets away.
func (p *Plugin) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for _, s := range p.servers {
		if err := s.Shutdown(ctx); err != nil {
			errs = append(errs, s.Close())
		}
	}
	p.served.Wait()
	p.namer.close()
	return errors.Join(errs...)
}

// callerKey is the caller's pid in a request's context.
type callerKey struct{}

// withCaller adds who has connected, as the kernel says it; nobody where it is another user.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	cred, err := peer(u)
	if err != nil || int(cred.Uid) != os.Geteuid() {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, int(cred.Pid))
}

// peer is who is at the other end, as the kernel says it.
func peer(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	closed := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(closed, err)
}

// caller is the pid of the process that has sent a request.
func caller(ctx context.Context) (pid int, ok bool) {
	pid, ok = ctx.Value(callerKey{}).(int)
	return pid, ok
}

// route answers one call. Body is its JSON.
type route func(ctx context.Context, body []byte) (any, error)

// call makes a route of a function that takes the call's own type and the daemon.
func call[Q any](p *Plugin, f func(context.Context, daemon, Q) (any, error)) route {
	return func(ctx context.Context, body []byte) (any, error) {
		var q Q
		if len(body) > 0 {
			if err := json.Unmarshal(body, &q); err != nil {
				return nil, fmt.Errorf("the request: %w", err)
			}
		}
		d, err := p.daemon(ctx)
		if err != nil {
			return nil, err
		}
		return f(ctx, d, q)
	}
}

// constant answers always the same.
func constant(v any) route {
	return func(context.Context, []byte) (any, error) { return v, nil }
}

// nothing is the answer to calls that are only told.
var nothing = map[string]any{}

// routes are the calls of both protocols.
func (p *Plugin) routes(driver string) map[string]route {
	scope := map[string]string{"Scope": "local", "ConnectivityScope": "local"}
	if kind, _ := network.DriverOf(driver); kind.Scope == network.ScopeGlobal {
		scope["ConnectivityScope"] = "global"
	}
	return map[string]route{
		"Plugin.Activate": constant(map[string][]string{"Implements": {"NetworkDriver", "IpamDriver"}}),

		"NetworkDriver.GetCapabilities":             constant(scope),
		"NetworkDriver.CreateNetwork":               call(p, p.createNetwork(driver)),
		"NetworkDriver.DeleteNetwork":               call(p, p.deleteNetwork),
		"NetworkDriver.CreateEndpoint":              call(p, p.createEndpoint),
		"NetworkDriver.DeleteEndpoint":              p.certainly(call(p, p.deleteEndpoint)),
		"NetworkDriver.EndpointOperInfo":            constant(map[string]any{"Value": nothing}),
		"NetworkDriver.Join":                        call(p, p.join),
		"NetworkDriver.Leave":                       constant(nothing),
		"NetworkDriver.ProgramExternalConnectivity": call(p, p.publish),
		"NetworkDriver.RevokeExternalConnectivity":  call(p, p.unpublish),
		"NetworkDriver.DiscoverNew":                 constant(nothing),
		"NetworkDriver.DiscoverDelete":              constant(nothing),

		"IpamDriver.GetCapabilities": constant(
			map[string]bool{"RequiresMACAddress": false, "RequiresRequestReplay": false}),
		"IpamDriver.GetDefaultAddressSpaces": constant(map[string]string{
			"LocalDefaultAddressSpace": addressSpace, "GlobalDefaultAddressSpace": addressSpace}),
		"IpamDriver.RequestPool":    call(p, p.requestPool(driver)),
		"IpamDriver.ReleasePool":    call(p, p.releasePool),
		"IpamDriver.RequestAddress": call(p, p.requestAddress),
		"IpamDriver.ReleaseAddress": call(p, p.releaseAddress),
	}
}

// handler answers the calls. Errors have the status 200 as well: dockerd reads them from the body.
func (p *Plugin) handler(driver string) http.Handler {
	m := http.NewServeMux()
	for name, f := range p.routes(driver) {
		m.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			err := errors.New("the plugin has failed; its log says why")
			var answer any
			isolate.Do(p.log, "answering Docker", func() { answer, err = p.answer(w, r, f) }, "call", name)
			if err != nil {
				p.log.Info("call failed", "call", name, "error", err)
				// What Docker calls it: "Err" in answers of network drivers, "Error" in those of IPAM drivers.
				answer = map[string]string{"Err": err.Error(), "Error": err.Error()}
			}
			_ = json.NewEncoder(w).Encode(answer) // dockerd is gone, or sees that it makes no sense
		})
	}
	return m
}

// answer carries out one call.
func (p *Plugin) answer(w http.ResponseWriter, r *http.Request, f route) (any, error) {
	pid, ok := caller(r.Context())
	if !ok {
		return nil, errors.New("this plugin belongs to another user")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), callLimit)
	defer cancel()
	p.greet(ctx, pid)
	return f(ctx, body)
}
