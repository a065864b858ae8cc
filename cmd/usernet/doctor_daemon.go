package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// daemonPart is first, since others ask the daemon only where it answers.
func (d *doctor) daemonPart(ctx context.Context, w io.Writer) error {
	i, err := d.cl.Info(ctx)
	switch {
	case errors.Is(err, api.ErrNoDaemon):
		d.finds(errdefs.TopicNoDaemon, "no daemon answers at %s", d.cl.Socket)
		return err
	case err != nil:
		d.finds(errdefs.TopicDaemonHangs, "the daemon at %s does not answer in time", d.cl.Socket)
		return err
	}
	d.answers, d.info = true, i
	if i.StateDir != "" {
		d.stateDir = i.StateDir
	}
	fmt.Fprintf(w, "Version: %s\nPid: %d\nSocket: %s\nState: %s\nRunning since: %s\nContainers: %d, %d running, %d exited\n"+
		"Networks: %d\nConfined: %s\n", i.Version, i.Pid, i.Socket, i.StateDir, i.Started.Format(time.RFC3339),
		i.Containers,
		i.Running, i.Exited, i.Networks, cmp.Or(strings.Join(i.Confined, ", "), "no"))
	fmt.Fprintf(w, "Limits of containers: %s%s\n", strings.Join(i.Cgroups.Controllers, ", "), i.Cgroups.Error)
	for _, n := range i.BGP {
		fmt.Fprintf(w, "BGP neighbour %s: established %v, %s\n", n.Addr, n.Established, n.Error)
	}
	for _, text := range i.Warnings {
		fmt.Fprintln(w, "Warning:", text)
		d.warned(text)
	}
	if i.Version != version {
		d.finds(errdefs.TopicOtherVersion, "the daemon is usernet %s, and this program %s", i.Version, version)
	}
	return nil
}

// warned notes a warning of the daemon.
func (d *doctor) warned(text string) {
	if strings.Contains(text, "ping") {
		d.findsOnce(errdefs.TopicPing, "%s", text)
	} else {
		d.finds(errdefs.TopicMachine, "%s", text)
	}
}

func (d *doctor) networksPart(ctx context.Context, w io.Writer) error {
	var list []network.Network
	if err := d.cl.Do(ctx, "GET", "/usernet/networks", nil, &list); err != nil {
		return err
	}
	for _, n := range list {
		fmt.Fprintf(w, "%s: driver %s, scope %s, internal %v, IPv6 %v", n.Name, n.Driver, n.Scope, n.Internal,
			n.EnableIPv6)
		for _, p := range n.Pools {
			fmt.Fprintf(w, ", %s by %s", p.Subnet, p.Gateway)
		}
		for _, o := range slices.Sorted(maps.Keys(n.Options)) {
			fmt.Fprintf(w, ", %s=%s", o, n.Options[o])
		}
		fmt.Fprintf(w, ", %d labels\n", len(n.Labels))
	}
	return nil
}

// containersPart leaves out commands, environments, labels and paths.
func (d *doctor) containersPart(ctx context.Context, w io.Writer) error {
	var list []network.Container
	if err := d.cl.Do(ctx, "GET", "/usernet/containers", nil, &list); err != nil {
		return err
	}
	for _, c := range list {
		fmt.Fprintf(w, "%s %s: %s, network %s", c.ID[:min(12, len(c.ID))], c.Name, c.Status, c.NetworkMode)
		if c.Status == network.Exited {
			fmt.Fprintf(w, ", exit status %d", c.ExitCode)
		}
		for _, e := range c.Endpoints {
			fmt.Fprintf(w, ", %s %s on %s", e.Interface, join(e), e.Network)
		}
		fmt.Fprintf(w, ", attached %v, VM %v, host loopback %v, egress %q, %d variables, %d labels, %d mounts\n", c.Attached,
			c.IsVM(), c.HostLoopback, c.Egress, len(c.Env), len(c.Labels), len(c.Mounts))
		if c.Status == network.Restarting || c.RestartCount > restartsMany {
			d.finds(errdefs.TopicContainerEnded, "container %s was restarted %d times", c.Name, c.RestartCount)
		}
	}
	return nil
}

// restartsMany is how many restarts of a container are worth a look.
const restartsMany = 10

// join is an endpoint's addresses.
func join(e *network.Endpoint) string {
	var list []string
	if e.IPv4.IsValid() {
		list = append(list, e.IPv4.String())
	}
	if e.IPv6.IsValid() {
		list = append(list, e.IPv6.String())
	}
	return strings.Join(list, " ")
}

// countersPart shows what is not 0.
func (d *doctor) countersPart(_ context.Context, w io.Writer) error {
	count := func(name string) string {
		if n := d.info.Counters[name].String(); n != "0" {
			return n
		}
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(d.info.Counters)) {
		if n := count(name); n != "" {
			fmt.Fprintf(w, "%s: %s\n", name, n)
		}
	}
	if n := count("panics"); n != "" {
		d.finds(errdefs.TopicFault, "%s faults in usernet were caught", n)
	}
	for _, name := range []string{"tcp_limit", "tcp_dial_limit", "udp_limit", "ping_limit", "memory_limit",
		"published_udp_limit"} {
		if n := count(name); n != "" {
			d.finds(errdefs.TopicLimits, "%s: %s times a container was at that limit", name, n)
		}
	}
	if n := count("descriptor_limit"); n != "" {
		d.finds(errdefs.TopicFiles, "descriptor_limit: %s times no descriptor was left for a container", n)
	}
	for _, name := range []string{"egress_prohibited", "dns_refused"} {
		if n := count(name); n != "" {
			d.finds(errdefs.TopicRefused, "%s: the egress policy has refused %s times", name, n)
		}
	}
	return nil
}

// samplePart has drops by reason, and numbers of flows and of questions for names; no addresses of peers, no names.
func (d *doctor) samplePart(ctx context.Context, w io.Writer) error {
	s, err := d.cl.Sample(ctx)
	if err != nil {
		return err
	}
	for _, i := range s.Interfaces {
		fmt.Fprintf(w, "%s on %s: in %s, out %s", i.Container, i.Network, units.BytesSize(float64(i.BytesIn)),
			units.BytesSize(float64(i.BytesOut)))
		for _, reason := range slices.Sorted(maps.Keys(i.Drops)) {
			fmt.Fprintf(w, ", dropped %s %d", reason, i.Drops[reason])
			d.finds(errdefs.TopicFrames, "container %s on network %s: %d frames dropped, reason %s", i.Container,
				i.Network,
				i.Drops[reason], reason)
		}
		fmt.Fprintln(w)
	}
	flows, answers := map[string]int{}, map[string]int{}
	for _, f := range s.Flows {
		flows[fmt.Sprintf("%s %s by %s, %s", f.Proto, f.Direction, f.Path, f.State)]++
	}
	for _, q := range s.Questions {
		answers[q.Type+" "+q.Rcode]++
	}
	for _, k := range slices.Sorted(maps.Keys(flows)) {
		fmt.Fprintf(w, "flows %s: %d\n", k, flows[k])
	}
	for _, k := range slices.Sorted(maps.Keys(answers)) {
		fmt.Fprintf(w, "latest answers %s: %d\n", k, answers[k])
	}
	if n := answers["A SERVFAIL"]; n > 0 {
		d.finds(errdefs.TopicNames, "%d of the latest questions for names got no answer (SERVFAIL)", n)
	}
	return nil
}

func (d *doctor) limitsPart(_ context.Context, w io.Writer) error {
	b := d.info.Budgets
	fmt.Fprintf(w, "Descriptors: %d of %d used, %d kept\nMemory: %s of %s set aside, each container %s\nGOMEMLIMIT: %d\n",
		b.DescriptorsUsed, b.Descriptors, b.DescriptorsReserve, units.BytesSize(float64(b.MemoryUsed)),
		units.BytesSize(float64(b.Memory)), units.BytesSize(float64(b.MemoryPerContainer)), b.GoMemoryLimit)
	if b.Descriptors > 0 && b.DescriptorsUsed*5 > b.Descriptors*4 {
		d.finds(errdefs.TopicFiles, "%d of %d descriptors are used", b.DescriptorsUsed, b.Descriptors)
	}
	return nil
}

func (d *doctor) clusterPart(ctx context.Context, w io.Writer) error {
	c, err := d.cl.Cluster(ctx)
	if errors.Is(err, errdefs.ErrUnavailable) {
		fmt.Fprintln(w, "This host is in no cluster.")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Host %s, store %s: connected %v since %s %s\nRecords: %d, unsent %d, clock ahead by %v\n", c.Host, c.Store,
		c.Connected, c.Since.Format(time.RFC3339), c.Error, c.Records, c.Unsent, c.Skew)
	if !c.Connected {
		d.finds(errdefs.TopicCluster, "the cluster's store is not reached: %s", c.Error)
	}
	for _, h := range c.Hosts {
		fmt.Fprintf(w, "%s %s: %s, path %s via %s, answers %v, endpoints %d, key refused %v\n", h.ID, h.Name, h.State, h.Path,
			h.Via, h.Answers, h.Endpoints, h.KeyRefused)
		if h.State == "down" || h.KeyRefused {
			d.finds(errdefs.TopicCluster, "host %s of the cluster is %s, key refused: %v", h.Name, h.State,
				h.KeyRefused)
		}
	}
	for _, n := range c.Notes {
		fmt.Fprintln(w, "Note:", n)
	}
	return nil
}
