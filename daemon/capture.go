package daemon

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/observe/capture"
	"github.com/usernet/usernet/observe/capture/filter"
	vswitch "github.com/usernet/usernet/switch"
)

// maxCaptures is how many run at once: each may hold capture.DefaultQueue bytes, and costs each frame a look.
const maxCaptures = 8

// captures are those that run, and the networks whose frames they are shown.
type captures struct {
	mu      sync.Mutex // guards all below
	bridges map[*bridge]struct{}
	running map[string]*capturing // by id
	lastID  int
}

// capturing is one capture that runs.
type capturing struct {
	api.Capture
	container, network string // ids; "": any
	rec                *capture.Recorder
	ctx                context.Context // ends when the capture is to end
	end                context.CancelFunc
	endpoints          sync.Map                     // attachmentKey: captured
	adding             sync.Mutex                   // held while one is added to endpoints and interfaces
	interfaces         map[string]*capture.Endpoint // by what is written of them

	stops map[*bridge]func() // guarded by captures.mu
}

// attachmentKey is where a container is attached, in each of its lives.
type attachmentKey struct {
	bridge *bridge
	id     string // the container's
}

// captured is an attachment as an interface of a capture. One that comes at the same place takes its part, so that a
// capture does not keep what containers that start again have left.
type captured struct {
	attachment *engine.Attachment
	endpoint   *capture.Endpoint
}

// join shows a network's frames to the captures that want them, until leave.
func (c *captures) join(b *bridge) (leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bridges == nil {
		c.bridges = map[*bridge]struct{}{}
	}
	c.bridges[b] = struct{}{}
	for _, each := range c.running {
		each.watch(b)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.bridges, b)
		for _, each := range c.running {
			if stop := each.stops[b]; stop != nil {
				stop()
				delete(each.stops, b)
			}
		}
	}
}

// watch has the capture shown a network's frames, if it wants any. The caller holds captures.mu.
func (c *capturing) watch(b *bridge) {
	if c.network != "" && c.network != b.record.ID {
		return
	}
	c.stops[b] = b.Capture(c.wants, func(a *engine.Attachment, in bool, f *vswitch.Frame) {
		c.endpoint(b, a).Frame(in, f.Ethernet(), f.Payload)
	})
	for _, a := range b.Attachments() { // so that endpoints are interfaces before their first frames
		if c.wants(a) {
			c.endpoint(b, a)
		}
	}
}

func (c *capturing) wants(a *engine.Attachment) bool {
	return c.container == "" || c.container == a.ID()
}

// endpoint is an attachment as an interface of the capture: one that looks the same is the same interface.
func (c *capturing) endpoint(b *bridge, a *engine.Attachment) *capture.Endpoint {
	key := attachmentKey{b, a.ID()}
	known := func() *capture.Endpoint {
		if v, ok := c.endpoints.Load(key); ok && v.(captured).attachment == a {
			return v.(captured).endpoint
		}
		return nil
	}
	if e := known(); e != nil {
		return e
	}
	c.adding.Lock()
	defer c.adding.Unlock()
	if e := known(); e != nil {
		return e
	}
	i := capture.Interface{
		Container: a.Name(),
		ID:        a.ID(),
		Network:   b.record.Name,
		MAC:       a.MAC(),
		Addrs:     a.Addrs(),
	}
	e := c.interfaces[fmt.Sprint(i)]
	if e == nil {
		e = c.rec.Endpoint(i)
		c.interfaces[fmt.Sprint(i)] = e
	}
	c.endpoints.Store(key, captured{a, e})
	return e
}

// Capture begins to record frames; the stream has to be run.
func (d *Daemon) Capture(q api.CaptureRequest) (*api.CaptureStream, error) {
	c, err := d.newCapture(q)
	if err != nil {
		return nil, err
	}
	if err := d.captures.add(c); err != nil {
		c.end()
		return nil, err
	}
	d.log.Info("capture begins", "capture", c.ID, "container", c.Container, "network", c.Network, "filter", c.Filter)
	return &api.CaptureStream{
		ID:        c.ID,
		Bypassing: d.bypassing(c),
		Run: func(ctx context.Context, w io.Writer, flush func() error) error {
			defer func() {
				d.captures.remove(c)
				n, _ := c.rec.Counts()
				d.log.Info("capture ends", "capture", c.ID, "frames", n.Accepted, "lost", n.Lost)
			}()
			defer context.AfterFunc(ctx, c.end)()
			return c.rec.Run(c.ctx, w, flush)
		},
	}, nil
}

// isInterface says whether an endpoint is an interface on a network: in those of the host and of none there is no such.
func (d *Daemon) isInterface(e *network.Endpoint) bool {
	n, err := d.model.Network(e.NetworkID)
	return err == nil && n.HasInterfaces()
}

// newCapture is a capture as it was asked for, which is shown nothing yet.
func (d *Daemon) newCapture(q api.CaptureRequest) (*capturing, error) {
	c := &capturing{stops: map[*bridge]func(){}, interfaces: map[string]*capture.Endpoint{}}
	c.Filter, c.Since = q.Filter, time.Now()
	if q.Snaplen < 0 || q.Count < 0 {
		return nil, errdefs.Invalid("a capture has no negative numbers of bytes or frames")
	}
	if q.Container != "" {
		one, err := d.model.Container(q.Container)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(one.Endpoints, d.isInterface) {
			return nil, errdefs.Conflict("container %s has no interface on a network of usernet's: there is nothing to capture",
				one.Name)
		}
		c.container, c.Container = one.ID, one.Name
	}
	if q.Network != "" {
		n, err := d.model.Network(q.Network)
		if err != nil {
			return nil, err
		}
		if !n.HasInterfaces() {
			return nil, errdefs.Conflict("containers on network %s have no interfaces of usernet's: there is nothing to capture",
				n.Name)
		}
		c.network, c.Network = n.ID, n.Name
	}
	f, err := filter.Parse(q.Filter, filter.Options{Lookup: d.addressesOf})
	if err != nil {
		return nil, errdefs.Invalid("%w", err)
	}
	c.rec = capture.New(capture.Config{
		Application: "usernet " + d.cfg.Version,
		Expression:  q.Filter,
		Filter:      f,
		Snaplen:     q.Snaplen,
		Count:       uint64(q.Count),
	})
	c.ctx, c.end = context.WithCancel(d.ctx)
	return c, nil
}

// addressesOf are the addresses of the container with a name, on all its networks.
func (d *Daemon) addressesOf(name string) []netip.Addr {
	c, err := d.model.Container(name)
	if err != nil || c.Name != name {
		return nil
	}
	var list []netip.Addr
	for _, e := range c.Endpoints {
		list = append(list, endpointAddrs(e)...)
	}
	return list
}

func (c *captures) add(one *capturing) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.running) >= maxCaptures {
		return errdefs.Unavailable("%d captures run already: end one (`usernet capture --list` shows them)", maxCaptures)
	}
	if c.running == nil {
		c.running = map[string]*capturing{}
	}
	c.lastID++
	one.ID = strconv.Itoa(c.lastID)
	c.running[one.ID] = one
	for b := range c.bridges {
		one.watch(b)
	}
	return nil
}

func (c *captures) remove(one *capturing) {
	one.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, one.ID)
	for _, stop := range one.stops {
		stop()
	}
	one.stops = nil
}

// bypassing counts the TCP connections that a capture would show if they did not bypass their interfaces.
func (d *Daemon) bypassing(c *capturing) int {
	flows, err := d.Flows(c.container)
	if err != nil {
		return 0 // the container has just gone
	}
	n := 0
	for _, f := range flows {
		past := f.Path == forwarder.PathBypass || f.Path == forwarder.PathSockets
		if past && (c.Network == "" || f.Network == c.Network) {
			n++
		}
	}
	return n
}

// Captures are those that run, in the order in which they began.
func (d *Daemon) Captures() []api.Capture {
	d.captures.mu.Lock()
	defer d.captures.mu.Unlock()
	list := []api.Capture{}
	for _, c := range d.captures.running {
		one := c.Capture
		n, endpoints := c.rec.Counts()
		one.Endpoints, one.Frames, one.Lost = endpoints, n.Accepted, n.Lost
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b api.Capture) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// EndCapture has a capture's Run write what waits, and return.
func (d *Daemon) EndCapture(id string) error {
	d.captures.mu.Lock()
	defer d.captures.mu.Unlock()
	c := d.captures.running[id]
	if c == nil {
		return errdefs.NotFound("no capture %s runs", id)
	}
	c.end()
	return nil
}
