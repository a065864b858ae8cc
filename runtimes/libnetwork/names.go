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
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/network"
)

const (
	// labelEndpoint is the label that has the endpoint's id in Docker.
	labelEndpoint = "usernet.endpoint"
	nameEvery     = 200 * time.Millisecond
	nameFor       = 2 * time.Minute // so long a container may take to start
	dockerLimit   = 5 * time.Second // of one request
	maxAnswer     = 64 << 20        // bytes: a list of all containers
)

// namer gives the daemon's containers the names that Docker's have. Docker's network plugins learn the ids of endpoints
// only, and its API knows the container of one once that has started; so it is asked until it does, and never from
// within a call, during which dockerd holds the container's lock.
type namer struct {
	daemon func(context.Context) (daemon, error)
	docker *http.Client
	log    *slog.Logger
	wake   chan struct{} // has room for one
	ctx    context.Context
	stop   context.CancelFunc // ends ctx
	ended  chan struct{}
	swept  sync.WaitGroup

	mu      sync.Mutex
	unnamed map[string]unnamed // by endpoint id
}

// unnamed is a container of the daemon's whose name is not known yet.
type unnamed struct {
	container, key string
	until          time.Time
}

// newNamer asks the API at a socket.
func newNamer(socket string, open func(context.Context) (daemon, error), log *slog.Logger) *namer {
	ctx, stop := context.WithCancel(context.Background())
	n := &namer{
		daemon: open,
		docker: &http.Client{Timeout: dockerLimit, Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, socket) },
		}},
		log:     log,
		wake:    make(chan struct{}, 1),
		ctx:     ctx,
		stop:    stop,
		ended:   make(chan struct{}),
		unnamed: map[string]unnamed{},
	}
	go func() {
		defer close(n.ended)
		isolate.Do(log, "looking for names", func() { n.run(ctx) })
	}()
	return n
}

// close ends it. It may be called on nil, as add and forget may.
func (n *namer) close() {
	if n == nil {
		return
	}
	n.stop()
	<-n.ended
	n.swept.Wait()
}

// add has an endpoint's container named.
func (n *namer) add(endpoint, container, key string) {
	if n == nil {
		return
	}
	n.mu.Lock()
	n.unnamed[endpoint] = unnamed{container, key, time.Now().Add(nameFor)}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default: // it is awake
	}
}

// forget is for endpoints that are gone.
func (n *namer) forget(endpoint string) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.unnamed, endpoint)
}

// run names what is to be named until ctx ends. What a plugin before this one has left unnamed comes first.
func (n *namer) run(ctx context.Context) {
	n.addLeft(ctx)
	for {
		if n.left(time.Now()) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-n.wake:
			}
		}
		if err := n.look(ctx); err != nil && ctx.Err() == nil {
			n.log.Debug("names of Docker's containers are not known yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(nameEvery):
		}
	}
}

// left says how many are still to be named, without those that have had their time.
func (n *namer) left(now time.Time) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, u := range n.unnamed {
		if now.After(u.until) {
			delete(n.unnamed, id)
		}
	}
	return len(n.unnamed)
}

// addLeft adds the containers that have no name of Docker's yet.
func (n *namer) addLeft(ctx context.Context) {
	d, err := n.daemon(ctx)
	if err != nil {
		return // the first call says so
	}
	list, err := d.Attachments(ctx, keyPrefix)
	if err != nil {
		return
	}
	for _, c := range list {
		id := c.Labels[labelEndpoint]
		if len(c.Endpoints) == 1 && id != "" && c.Name == "docker-"+short(id) {
			n.add(id, c.ID, c.Endpoints[0].Key)
		}
	}
}

// dockerContainer is what the API says of a container, in lists and by itself.
type dockerContainer struct {
	ID              string `json:"Id"`
	Names           []string
	NetworkSettings struct {
		Networks map[string]struct {
			EndpointID string
			Aliases    []string
		}
	}
}

// look asks for all containers once, and names those that are known by then.
func (n *namer) look(ctx context.Context) error {
	var list []dockerContainer
	if err := n.get(ctx, "/containers/json", &list); err != nil {
		return err
	}
	var errs []error
	for _, c := range list {
		if len(c.Names) == 0 {
			continue
		}
		for net, e := range c.NetworkSettings.Networks {
			n.mu.Lock()
			u, wanted := n.unnamed[e.EndpointID]
			n.mu.Unlock()
			if !wanted {
				continue
			}
			err := n.name(ctx, u, c.ID, net, strings.TrimPrefix(c.Names[0], "/"))
			if err == nil {
				n.forget(e.EndpointID)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// name gives a container of the daemon's the name and the aliases of Docker's. Where the name is another container's
// already, as with one on two networks, it is an alias.
func (n *namer) name(ctx context.Context, u unnamed, id, net, name string) error {
	var c dockerContainer
	if err := n.get(ctx, "/containers/"+url.PathEscape(id)+"/json", &c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dockerLimit)
	defer cancel()
	d, err := n.daemon(ctx)
	if err != nil {
		return err
	}
	aliases := c.NetworkSettings.Networks[net].Aliases
	if err := d.ContainerRename(ctx, u.container, name); err != nil {
		n.log.Debug("a container keeps its name, and has Docker's as an alias", "name", name, "error", err)
		if !slices.Contains(aliases, name) {
			aliases = append(aliases, name)
		}
	}
	if len(aliases) == 0 {
		return nil
	}
	q := api.AttachRequest{Key: u.key, Moves: true}
	q.Spec.Networks = []network.NamedEndpointSpec{{EndpointSpec: network.EndpointSpec{Aliases: aliases}}}
	_, err = d.Attach(ctx, q, nil)
	return err
}

// getOf is get of the dockerd that is a process: another one may answer at the socket by now, or still.
func (n *namer) getOf(ctx context.Context, dockerd int, path string, into any) error {
	return n.get(context.WithValue(ctx, dockerdKey{}, dockerd), path, into)
}

// dockerdKey is under what a request's context has the pid of the dockerd that it is for.
type dockerdKey struct{}

// dial connects to Docker's API at a socket.
func dial(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	want, ok := ctx.Value(dockerdKey{}).(int)
	if err != nil || !ok {
		return c, err
	}
	cred, err := peer(c.(*net.UnixConn))
	if err == nil && int(cred.Pid) != want {
		err = fmt.Errorf("process %d answers at %s, which is not the dockerd that calls, %d", cred.Pid, socket, want)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// get reads one answer of Docker's API.
func (n *namer) get(ctx context.Context, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, "GET", "http://docker"+path, nil)
	if err != nil {
		return err
	}
	answer, err := n.docker.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the API of Docker: GET %s: %s", path, answer.Status)
	}
	return json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(into)
}
