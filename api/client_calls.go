package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/network"
)

// Filters choose among what a list shows, as Docker's --filter does: any value of a key may match, and each key has to.
type Filters map[string][]string

// query writes f into q as Docker's API wants it.
func (f Filters) query(q url.Values) url.Values {
	if len(f) == 0 {
		return q
	}
	m := map[string]map[string]bool{}
	for k, list := range f {
		m[k] = map[string]bool{}
		for _, v := range list {
			m[k][v] = true
		}
	}
	b, _ := json.Marshal(m) // strings and booleans always encode
	q.Set("filters", string(b))
	return q
}

// Ping returns nil where a daemon answers.
func (c *Client) Ping(ctx context.Context) error { return c.Do(ctx, "GET", "/_ping", nil, nil) }

// Info returns the daemon's state in numbers.
func (c *Client) Info(ctx context.Context) (i Info, err error) {
	err = c.Do(ctx, "GET", "/usernet/info", nil, &i)
	return i, err
}

// Shutdown asks the daemon to end; its containers go on. It may end before it has answered, which is ErrDaemonEnded.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.Do(ctx, "POST", "/usernet/shutdown", nil, nil)
}

// SetNetworkPolicy changes which containers of a network reach each other; "": all do.
func (c *Client) SetNetworkPolicy(ctx context.Context, ref, rules string) error {
	return c.Do(ctx, "POST", path("/usernet/networks", ref, "policy"), PolicyRequest{rules}, nil)
}

// NetworkUpdate changes a network, at once for its containers.
func (c *Client) NetworkUpdate(ctx context.Context, ref string, q NetworkUpdate) error {
	return c.Do(ctx, "POST", path("/usernet/networks", ref, "update"), q, nil)
}

// Cluster describes the cluster that the host is in.
func (c *Client) Cluster(ctx context.Context) (v Cluster, err error) {
	err = c.Do(ctx, "GET", "/usernet/cluster", nil, &v)
	return v, err
}

// ExposeSubnet has containers of other hosts reach a subnet through this host.
func (c *Client) ExposeSubnet(ctx context.Context, subnet string) error {
	return c.Do(ctx, "POST", "/usernet/cluster/expose", ExposeRequest{subnet}, nil)
}

// UnexposeSubnet ends that.
func (c *Client) UnexposeSubnet(ctx context.Context, subnet string) error {
	return c.Do(ctx, "POST", "/usernet/cluster/unexpose", ExposeRequest{subnet}, nil)
}

// LeaveCluster takes a host's records out of the cluster.
func (c *Client) LeaveCluster(ctx context.Context, q LeaveRequest) error {
	return c.Do(ctx, "POST", "/usernet/cluster/leave", q, nil)
}

// Networks lists networks in Docker's form, by name.
func (c *Client) Networks(ctx context.Context, f Filters) (list []dockernet.Summary, err error) {
	err = c.Do(ctx, "GET", withQuery("/networks", f.query(url.Values{})), nil, &list)
	return list, err
}

// NetworkRecords lists networks as usernet keeps them, by name.
func (c *Client) NetworkRecords(ctx context.Context) (list []*network.Network, err error) {
	err = c.Do(ctx, "GET", "/usernet/networks", nil, &list)
	return list, err
}

// Network returns one network in Docker's form, with its running containers.
func (c *Client) Network(ctx context.Context, ref string) (n dockernet.Inspect, err error) {
	err = c.Do(ctx, "GET", path("/networks", ref), nil, &n)
	return n, err
}

// NetworkDetails returns what `usernet network inspect --verbose` adds: switch ports, drops by reason, counters.
func (c *Client) NetworkDetails(ctx context.Context, ref string) (v any, err error) {
	err = c.Do(ctx, "GET", path("/usernet/networks", ref, "details"), nil, &v)
	return v, err
}

// NetworkCreate makes a network.
func (c *Client) NetworkCreate(ctx context.Context, spec network.NetworkSpec) (n CreatedNetwork, err error) {
	err = c.Do(ctx, "POST", "/usernet/networks", spec, &n)
	return n, err
}

// NetworkRemove removes a network that has no endpoints.
func (c *Client) NetworkRemove(ctx context.Context, ref string) error {
	return c.Do(ctx, "DELETE", path("/usernet/networks", ref), nil, nil)
}

// NetworksPrune removes the networks that nothing uses and that f matches, and returns their names.
func (c *Client) NetworksPrune(ctx context.Context, f Filters) ([]string, error) {
	var r struct{ NetworksDeleted []string }
	err := c.Do(ctx, "POST", withQuery("/networks/prune", f.query(url.Values{})), nil, &r)
	return r.NetworksDeleted, err
}

// NetworkConnect gives a container an interface on one more network, at once where it runs.
func (c *Client) NetworkConnect(ctx context.Context, ref, container string, spec network.EndpointSpec) error {
	return c.Do(ctx, "POST", path("/usernet/networks", ref, "connect"),
		Attachment{Container: container, Endpoint: spec}, nil)
}

// NetworkDisconnect takes it away.
func (c *Client) NetworkDisconnect(ctx context.Context, ref, container string, force bool) error {
	return c.Do(ctx, "POST", path("/usernet/networks", ref, "disconnect"),
		Attachment{Container: container, Force: force}, nil)
}

// ContainerList chooses among containers.
type ContainerList struct {
	All     bool // those that ended too
	Limit   int  // the latest so many, ended ones included; 0 means all
	Filters Filters
}

// Containers lists containers in Docker's form, the newest first.
func (c *Client) Containers(ctx context.Context, o ContainerList) (list []container.Summary, err error) {
	q := o.Filters.query(url.Values{})
	if o.All {
		q.Set("all", "1")
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	err = c.Do(ctx, "GET", withQuery("/containers/json", q), nil, &list)
	return list, err
}

// ContainerRecords lists containers as usernet keeps them, ended ones included, the newest first.
func (c *Client) ContainerRecords(ctx context.Context) (list []*network.Container, err error) {
	err = c.Do(ctx, "GET", "/usernet/containers", nil, &list)
	return list, err
}

// Container returns one container as usernet keeps it.
func (c *Client) Container(ctx context.Context, ref string) (*network.Container, error) {
	k := new(network.Container)
	return k, c.Do(ctx, "GET", path("/usernet/containers", ref), nil, k)
}

// ContainerInspect returns one container in Docker's form.
func (c *Client) ContainerInspect(ctx context.Context, ref string) (r container.InspectResponse, err error) {
	err = c.Do(ctx, "GET", path("/containers", ref, "json"), nil, &r)
	return r, err
}

// ContainerCreate reserves a container's name and addresses. Its sandbox is then told to the daemon with
// ContainerStart, within a minute.
func (c *Client) ContainerCreate(ctx context.Context, spec network.ContainerSpec) (made Created, err error) {
	err = c.Do(ctx, "POST", "/usernet/containers", spec, &made)
	return made, err
}

// ContainerStart makes the network of a created container's sandbox.
func (c *Client) ContainerStart(ctx context.Context, ref string, p Started) (r StartReply, err error) {
	err = c.Do(ctx, "POST", path("/usernet/containers", ref, "start"), p, &r)
	return r, err
}

// Attach gives the network namespace netns, which stays the caller's, interfaces; nil for a virtual machine. It returns
// when traffic can flow.
func (c *Client) Attach(ctx context.Context, q AttachRequest, netns *os.File) (made AttachReply, err error) {
	if netns == nil {
		err = c.Do(ctx, "POST", "/usernet/attachments", q, &made)
		return made, err
	}
	once := &Client{Socket: c.Socket, OnSilence: c.OnSilence, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", c.Socket)
			if err != nil {
				return nil, err
			}
			return &sendingConn{UnixConn: conn.(*net.UnixConn), file: netns}, nil // since it was dialled so
		},
	}}}
	err = once.Do(ctx, "POST", "/usernet/attachments", q, &made)
	return made, err
}

// Attachments lists the containers that were attached with keys which begin with prefix.
func (c *Client) Attachments(ctx context.Context, prefix string) (list []network.Container, err error) {
	err = c.Do(ctx, "GET", "/usernet/attachments?prefix="+url.QueryEscape(prefix), nil, &list)
	return list, err
}

// Detach takes the interfaces away that were attached with a key.
func (c *Client) Detach(ctx context.Context, key string) error {
	return c.Do(ctx, "DELETE", path("/usernet/attachments", key), nil, nil)
}

// ContainerExited reports the exit status of a container whose first process is pid.
func (c *Client) ContainerExited(ctx context.Context, ref string, pid, code int) error {
	q := url.Values{"code": {strconv.Itoa(code)}, "pid": {strconv.Itoa(pid)}}
	return c.Do(ctx, "POST", withQuery(path("/usernet/containers", ref, "exit"), q), nil, nil)
}

// ContainerHealth reports what the health check says of a container whose first process is pid.
func (c *Client) ContainerHealth(ctx context.Context, ref string, pid int, h network.Health) error {
	return c.Do(ctx, "POST", path("/usernet/containers", ref, "health")+"?pid="+strconv.Itoa(pid), h, nil)
}

// stopQuery has what stop and restart are asked with: a signal and a time ("" and nil: the container's own).
func stopQuery(signal string, timeout *time.Duration) url.Values {
	q := url.Values{"signal": {signal}}
	if timeout != nil {
		q.Set("t", strconv.Itoa(int(*timeout/time.Second)))
	}
	return q
}

// ContainerStop sends signal, and KILL after the timeout ("" and nil: the container's own); it returns once the
// container has ended.
func (c *Client) ContainerStop(ctx context.Context, ref, signal string, timeout *time.Duration) error {
	return c.Do(ctx, "POST", withQuery(path("/usernet/containers", ref, "stop"), stopQuery(signal, timeout)), nil, nil)
}

// ContainerRestart does the same where the container runs, and then runs it again.
func (c *Client) ContainerRestart(ctx context.Context, ref, signal string, timeout *time.Duration) error {
	return c.Do(ctx, "POST", withQuery(path("/usernet/containers", ref, "restart"), stopQuery(signal, timeout)), nil,
		nil)
}

// ContainerStartAgain runs a container that has ended once more; it returns once its command runs.
func (c *Client) ContainerStartAgain(ctx context.Context, ref string) error {
	return c.Do(ctx, "POST", path("/usernet/containers", ref, "again"), nil, nil)
}

// ContainerUpdate changes a container's limits and restart policy.
func (c *Client) ContainerUpdate(ctx context.Context, ref string, q UpdateRequest) error {
	return c.Do(ctx, "POST", path("/usernet/containers", ref, "update"), q, nil)
}

// ContainerKill sends a signal ("" means KILL).
func (c *Client) ContainerKill(ctx context.Context, ref, signal string) error {
	return c.Do(ctx, "POST", withQuery(path("/usernet/containers", ref, "kill"), url.Values{"signal": {signal}}), nil,
		nil)
}

// ContainerRemove forgets a container. A running one is killed first where force is set, or detached where it is
// attached; else it is an error.
func (c *Client) ContainerRemove(ctx context.Context, ref string, force bool) error {
	p := path("/usernet/containers", ref)
	if force {
		p += "?force=1"
	}
	return c.Do(ctx, "DELETE", p, nil, nil)
}

// ContainerRename gives a container another name; its DNS names follow at once.
func (c *Client) ContainerRename(ctx context.Context, ref, name string) error {
	return c.Do(ctx, "POST", withQuery(path("/containers", ref, "rename"), url.Values{"name": {name}}), nil, nil)
}

// ContainerWait returns a container's exit status once it has ended. It goes on with the daemon that takes the place
// of the one that was asked first.
func (c *Client) ContainerWait(ctx context.Context, ref string) (code int, err error) {
	for {
		err = c.Do(ctx, "POST", path("/usernet/containers", ref, "wait"), nil, &code)
		if !errors.Is(err, ErrDaemonEnded) || c.Ping(ctx) != nil {
			return code, err
		}
	}
}

// ContainerWaitOnce returns nil once a container has ended, and ErrDaemonEnded where the daemon that was asked ends
// first.
func (c *Client) ContainerWaitOnce(ctx context.Context, ref string) error {
	var code int
	return c.Do(ctx, "POST", path("/usernet/containers", ref, "wait"), nil, &code)
}

// ContainerLog returns the path of the file with a detached container's output.
func (c *Client) ContainerLog(ctx context.Context, ref string) (file string, err error) {
	err = c.Do(ctx, "GET", path("/usernet/containers", ref, "log"), nil, &file)
	return file, err
}

// ContainerStats measures a container once. One that does not run has nothing but its name.
func (c *Client) ContainerStats(ctx context.Context, ref string) (v container.StatsResponse, err error) {
	err = c.Do(ctx, "GET", path("/containers", ref, "stats")+"?stream=false&one-shot=true", nil, &v)
	return v, err
}

// Ports lists a container's published ports as they are bound now.
func (c *Client) Ports(ctx context.Context, ref string) (list []Published, err error) {
	err = c.Do(ctx, "GET", path("/usernet/containers", ref, "ports"), nil, &list)
	return list, err
}

// PortsAdd publishes ports of a running container, all or nothing, and returns what was bound.
func (c *Client) PortsAdd(ctx context.Context, ref string, ports []network.PortBinding) (bound []Published, err error) {
	err = c.Do(ctx, "POST", path("/usernet/containers", ref, "ports"), ports, &bound)
	return bound, err
}

// PortsRemove takes published ports away. HostPort 0 stands for any port of the host.
func (c *Client) PortsRemove(ctx context.Context, ref string, ports []network.PortBinding) error {
	return c.Do(ctx, "DELETE", path("/usernet/containers", ref, "ports"), ports, nil)
}

// Flows lists connections and associations through the gateways, of one container or ("") of all.
func (c *Client) Flows(ctx context.Context, ref string) (list []Flow, err error) {
	q := url.Values{}
	if ref != "" {
		q.Set("container", ref)
	}
	err = c.Do(ctx, "GET", withQuery("/usernet/flows", q), nil, &list)
	return list, err
}

// DNSQuery asks the embedded DNS server as a container would, or with an empty ref as the host would.
func (c *Client) DNSQuery(ctx context.Context, ref, name, qtype string) (a DNSAnswer, err error) {
	q := url.Values{"name": {name}, "type": {qtype}, "container": {ref}}
	err = c.Do(ctx, "GET", withQuery("/usernet/dns/query", q), nil, &a)
	return a, err
}

// EventOptions choose events. Times are in Docker's forms: seconds since 1970, RFC 3339, a date, or a duration back
// from now.
type EventOptions struct {
	Since, Until string
	Filters      Filters
}

// Events calls f for each event until ctx ends or Until is reached, which is no error, until f fails, or until the
// daemon ends, which is ErrDaemonEnded.
func (c *Client) Events(ctx context.Context, o EventOptions, f func(events.Message) error) error {
	q := o.Filters.query(url.Values{})
	for k, v := range map[string]string{"since": o.Since, "until": o.Until} {
		if v != "" {
			q.Set(k, v)
		}
	}
	res, err := c.send(ctx, "GET", withQuery("/events", q), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for d := json.NewDecoder(res.Body); ; {
		var m events.Message
		switch err := d.Decode(&m); {
		case errors.Is(err, io.EOF), err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return c.broken(ctx, err)
		}
		if err := f(m); err != nil {
			return err
		}
	}
}
