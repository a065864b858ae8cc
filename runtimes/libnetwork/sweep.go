package libnetwork

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/sandbox"
)

// A dockerd that is killed between two calls forgets what the first one made: a subnet that it has reserved, a network,
// an endpoint. The next dockerd does not ask for its end. So when another dockerd calls for the first time, the plugin
// notes what there is, and once that one answers for itself, removes what it does not know.

const (
	// labelNetwork has the id of Docker's network, on the daemon's that was made for it.
	labelNetwork = "usernet.docker"
	// labelPool is on networks that only reserve a subnet.
	labelPool  = "usernet.docker.pool"
	sweepEvery = 200 * time.Millisecond
)

// leftovers are what there was when a dockerd called for the first time, and how it is asked.
type leftovers struct {
	dockerd  int // its pid
	networks []dockernet.Summary
	keys     []string // of attachments
	content
}

// greet notes which dockerd calls, and has the leftovers of the one before looked for. It is called before the call is
// answered, so that nothing of this dockerd is among them. What cannot be done now is done with the next call.
func (p *Plugin) greet(ctx context.Context, pid int) {
	start, err := sandbox.StartTime(pid)
	if err != nil || p.namer == nil {
		return
	}
	p.greeting.Lock()
	defer p.greeting.Unlock()
	id := fmt.Sprintf("%d/%d", pid, start)
	before := p.state.copy()
	if before.Docker == id {
		return
	}
	d, err := p.namer.daemon(ctx)
	if err != nil {
		return // no daemon has anything
	}
	left := leftovers{dockerd: pid, content: before}
	attached, err := d.Attachments(ctx, keyPrefix)
	if err == nil {
		left.networks, err = d.Networks(ctx, nil)
	}
	for _, c := range attached {
		for _, e := range c.Endpoints {
			left.keys = append(left.keys, e.Key)
		}
	}
	if err == nil {
		err = p.state.change(func(c *content) { c.Docker = id })
	}
	if err != nil {
		p.log.Debug("what an earlier dockerd has left is not known yet", "error", err)
		return
	}
	if before.Docker != "" {
		p.namer.insist("what an earlier dockerd has left",
			func(ctx context.Context) error { return p.sweep(ctx, left) })
	}
}

// dockerNetwork is what Docker's API says of a network, in lists and by itself.
type dockerNetwork struct {
	ID   string `json:"Id"`
	IPAM struct {
		Driver string
		Config []struct{ Subnet string }
	}
	Containers map[string]struct{ EndpointID string }
}

// sweep removes those of the leftovers that Docker does not know.
func (p *Plugin) sweep(ctx context.Context, left leftovers) error {
	var list []dockerNetwork
	if err := p.namer.getOf(ctx, left.dockerd, "/networks", &list); err != nil {
		return err
	}
	known, uses := map[string]bool{}, map[string]int{}
	for _, n := range list {
		known[n.ID] = true
		if _, ours := drivers[n.IPAM.Driver]; ours {
			for _, c := range n.IPAM.Config {
				uses[c.Subnet]++
			}
		}
	}
	d, err := p.namer.daemon(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return errors.Join(p.sweepEndpoints(ctx, d, left, known), p.sweepNetworks(ctx, d, left, known, uses))
}

// sweepEndpoints ends attachments of endpoints that Docker does not have.
func (p *Plugin) sweepEndpoints(ctx context.Context, d daemon, left leftovers, known map[string]bool) error {
	endpoints := map[string]map[string]bool{} // by network
	var errs []error
	for _, k := range left.keys {
		id, endpoint, _ := strings.Cut(strings.TrimPrefix(k, keyPrefix), "/")
		if _, asked := endpoints[id]; !asked && known[id] {
			var n dockerNetwork
			if err := p.namer.getOf(ctx, left.dockerd, "/networks/"+id, &n); err != nil {
				errs = append(errs, err)
				continue
			}
			endpoints[id] = map[string]bool{}
			for _, c := range n.Containers {
				endpoints[id][c.EndpointID] = true
			}
		}
		if !endpoints[id][endpoint] {
			p.log.Info("removing what an earlier dockerd has left", "endpoint", short(endpoint))
			p.namer.forget(endpoint)
			errs = append(errs, d.Detach(ctx, k))
		}
	}
	return errors.Join(errs...)
}

// sweepNetworks removes networks that were made for Docker's alone and subnets that none of Docker's has, and forgets
// which they were. How often Docker uses those that it has is corrected.
func (p *Plugin) sweepNetworks(
	ctx context.Context, d daemon, left leftovers, known map[string]bool, uses map[string]int,
) error {
	var errs []error
	remove := func(id string) {
		p.log.Info("removing what an earlier dockerd has left", "network", short(id))
		if err := d.NetworkRemove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	for _, n := range left.networks {
		owner, made := n.Labels[labelNetwork]
		if made && !known[owner] || n.Labels[labelPool] != "" && !hasUse(n, uses) {
			remove(n.ID)
		}
	}
	return errors.Join(append(errs, p.state.change(func(c *content) {
		maps.DeleteFunc(c.Networks, func(id string, _ netRef) bool {
			_, was := left.Networks[id]
			return was && !known[id]
		})
		for subnet, was := range left.Pools {
			have, ok := c.Pools[subnet]
			if !ok || have != was {
				continue // this dockerd has asked for it meanwhile
			}
			if have.Uses = uses[subnet]; have.Uses == 0 {
				delete(c.Pools, subnet)
			} else {
				c.Pools[subnet] = have
			}
		}
	}))...)
}

// hasUse says whether one of a network's subnets is used.
func hasUse(n dockernet.Summary, uses map[string]int) bool {
	for _, c := range n.IPAM.Config {
		if uses[c.Subnet.String()] > 0 {
			return true
		}
	}
	return false
}

// insist has f, which removes what, called until it succeeds, for as long as a container may take to start.
func (n *namer) insist(what string, f func(context.Context) error) {
	n.swept.Go(func() {
		isolate.Do(n.log, "removing "+what, func() {
			until := time.Now().Add(nameFor)
			for {
				err := f(n.ctx)
				if err == nil || n.ctx.Err() != nil {
					return
				}
				if time.Now().After(until) {
					n.log.Warn(what+" stays until the next dockerd", "error", err)
					return
				}
				select {
				case <-n.ctx.Done():
					return
				case <-time.After(sweepEvery):
				}
			}
		})
	})
}
