package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/client"
	"github.com/usernet/usernet/sandbox"
)

// Limits of one call of the plugin. Runtimes wait for it while they hold locks of their own.
const (
	callLimit   = 30 * time.Second
	statusLimit = 5 * time.Second // of STATUS, which engines ask again and again; a daemon answers in milliseconds
)

// daemon is what the plugin needs of usernet's; *api.Client has it.
type daemon interface {
	Ping(ctx context.Context) error
	Network(ctx context.Context, ref string) (dockernet.Inspect, error)
	NetworkCreate(ctx context.Context, spec network.NetworkSpec) (api.CreatedNetwork, error)
	Attach(ctx context.Context, q api.AttachRequest, netns *os.File) (api.AttachReply, error)
	Attachments(ctx context.Context, prefix string) ([]network.Container, error)
	Detach(ctx context.Context, key string) error
	DetachLater(key string) error
}

// plugin serves one call.
type plugin struct {
	getenv func(string) string
	stderr io.Writer // for warnings
	open   func(socket string, getenv func(string) string) (daemon, error)
}

// Main serves the call that the environment and standard input describe (the protocol of the specification's section
// 2), and returns the exit status.
func Main(about string) int {
	p := plugin{os.Getenv, os.Stderr, func(socket string, getenv func(string) string) (daemon, error) {
		return client.New(socket, getenv)
	}}
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status,
	}, version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"), about)
	if err == nil {
		return 0
	}
	if printed := err.Print(); printed != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return 1
}

// prefix begins the keys of all attachments to a configuration's network. CNI's names have no slash.
func prefix(name string) string { return "cni/" + name + "/" }

// key is an attachment's.
func key(name, container, ifname string) string { return prefix(name) + container + "/" + ifname }

// begin reads the configuration and finds the daemon.
func (p plugin) begin(args *skel.CmdArgs) (*config, daemon, context.Context, context.CancelFunc, error) {
	c, err := parse(args.StdinData)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	d, err := p.open(c.Socket, p.getenv)
	if err != nil {
		return nil, nil, nil, nil, invalid(types.ErrInvalidEnvironmentVariables, "%v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	return c, d, ctx, cancel, nil
}

// add attaches the namespace, and prints where it is attached. It undoes what it did where it cannot.
func (p plugin) add(args *skel.CmdArgs) error {
	c, d, ctx, cancel, err := p.begin(args)
	if err != nil {
		return err
	}
	defer cancel()
	spec, pod, err := p.container(c, args)
	if err != nil {
		return err
	}
	binder, ports := c.binder(p.getenv), spec.Ports
	if binder != bindDaemon {
		spec.Ports = nil
	}
	netns, err := sandbox.OpenNetNS(args.Netns)
	if err != nil {
		return invalid(types.ErrInvalidNetNS, "network namespace: %v", err)
	}
	defer netns.Close()
	if err := c.ensureNetwork(ctx, d); err != nil {
		return coded(err)
	}
	k := key(c.Name, args.ContainerID, args.IfName)
	made, err := d.Attach(ctx, api.AttachRequest{Key: k, Spec: spec}, netns)
	if short := shortID(args.ContainerID); pod && errdefs.IsConflict(err) && spec.Name != short {
		// Pods of several namespaces may have one name, and one that is made anew comes before the old one goes.
		on := &spec.Networks[0]
		spec.Name, on.Aliases = short, append(on.Aliases, spec.Name)
		made, err = d.Attach(ctx, api.AttachRequest{Key: k, Spec: spec}, netns)
	}
	if err != nil {
		return coded(asked(spec, err))
	}
	if err := samePorts(spec, made.Container); err != nil { // what is there stays
		return err
	}
	if binder == bindRootlessKit && len(ports) > 0 {
		err = p.leadOn(ctx, d, attached(made.Container, k), args, ports)
	}
	if err == nil {
		err = p.printResult(ctx, c, args, made.Container, k, d)
	}
	if err != nil {
		undo, cancel := context.WithTimeout(context.Background(), callLimit) // ctx may be what ended
		defer cancel()
		return coded(errors.Join(err, p.detach(undo, d, k, args.ContainerID)))
	}
	return nil
}

// samePorts refuses an ADD of an interface that is there already and has not the ports that this one asks for: a call
// may be repeated, but it changes no interface (the specification's section 2, "ADD"). Other addresses are refused by
// the daemon.
func samePorts(spec network.ContainerSpec, made network.Container) error {
	for _, p := range spec.Ports {
		if !slices.Contains(made.Ports, p) {
			return invalid(CodeTaken, "container %s is on network %s already, without the published port %d:%d/%s: "+
				"call DEL first", made.Name, spec.Networks[0].Network, p.HostPort, p.Port, p.Proto)
		}
	}
	return nil
}

// leadOn has RootlessKit's ports led into the container. As with the daemon's, they are not on internal networks.
func (p plugin) leadOn(
	ctx context.Context,
	d daemon,
	e *network.Endpoint,
	args *skel.CmdArgs,
	ports []network.PortBinding,
) error {
	if e == nil {
		return nil // printResult says so
	}
	n, err := d.Network(ctx, e.NetworkID)
	if err != nil || n.Internal {
		return err
	}
	return p.startRelay(ctx, args.ContainerID, args.Netns, e, ports)
}

// container is what stands for the namespace in usernet's model. pod: it is one of Kubernetes, whose name is unique
// among those of its own namespace alone.
func (p plugin) container(c *config, args *skel.CmdArgs) (spec network.ContainerSpec, pod bool, err error) {
	var env envArgs
	env.IgnoreUnknown = true
	if err := types.LoadArgs(args.Args, &env); err != nil {
		return spec, false, invalid(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: %v", err)
	}
	e, err := c.endpoint(args, env)
	if err != nil {
		return spec, false, err
	}
	ports, err := c.ports()
	if err != nil {
		return spec, false, err
	}
	spec = network.ContainerSpec{
		Name: containerName(
			args.ContainerID,
			env,
			os.DirFS("."),
		), NetworkMode: c.Network, Ports: ports, Egress: c.Egress, AllowEgress: c.AllowEgress,
		Networks: []network.NamedEndpointSpec{{Network: c.Network, EndpointSpec: e}},
		Labels:   map[string]string{"usernet.cni": c.Name, "usernet.container": args.ContainerID},
	}
	for _, l := range c.Args.CNI.Labels {
		spec.Labels[l.Key] = l.Value
	}
	dns := c.dns()
	spec.DNS, spec.DNSSearch, spec.DNSOptions = dns.Nameservers, dns.Search, dns.Options
	return spec, env.K8S_POD_NAMESPACE != "", nil
}

// ensureNetwork makes the network where it is not there and may be made, and refuses one that is not as described.
func (c *config) ensureNetwork(ctx context.Context, d daemon) error {
	n, err := client.EnsureNetwork(ctx, d, c.Network, func(missing error) (network.NetworkSpec, error) {
		if err := c.mayCreate(missing); err != nil {
			return network.NetworkSpec{}, err
		}
		return c.networkSpec()
	})
	if err != nil {
		return err
	}
	return c.fits(n)
}

// mayCreate says why the network, which is missing, is not to be made.
func (c *config) mayCreate(missing error) error {
	if c.Create == nil || *c.Create {
		return nil
	}
	return invalid(types.ErrInvalidNetworkConfig,
		"%v: make it with `usernet network create %s`", missing, c.Network)
}

// del ends an attachment. That there is none is no error, and neither is a namespace or a daemon that is gone (the
// specification's section 2: DEL completes without error even if some state is missing).
func (p plugin) del(args *skel.CmdArgs) error {
	c, d, ctx, cancel, err := p.begin(args)
	if err != nil {
		return err
	}
	defer cancel()
	return coded(p.detach(ctx, d, key(c.Name, args.ContainerID, args.IfName), args.ContainerID))
}

// detach ends an attachment, and what leads ports to the container. A daemon that has ended is a warning. Where it is
// there and fails, the ports stay: a runtime that cannot delete goes on with the container, as nerdctl does.
func (p plugin) detach(ctx context.Context, d daemon, key, container string) error {
	if err := client.Detach(ctx, d, key, p.stderr); err != nil {
		return err
	}
	return p.endRelay(container)
}

// gc ends the attachments of a network that the runtime does not name. A runtime that names no list asks for nothing:
// an empty list, which asks for all to end, is there.
func (p plugin) gc(args *skel.CmdArgs) error {
	c, d, ctx, cancel, err := p.begin(args)
	if err != nil {
		return err
	}
	defer cancel()
	if !strings.Contains(string(args.StdinData), `"cni.dev/valid-attachments"`) {
		return nil
	}
	valid := map[string]bool{}
	for _, a := range c.ValidAttachments {
		valid[key(c.Name, a.ContainerID, a.IfName)] = true
	}
	list, err := d.Attachments(ctx, prefix(c.Name))
	if err != nil {
		return coded(err)
	}
	var failed []error
	for _, k := range list {
		for _, e := range k.Endpoints {
			if strings.HasPrefix(e.Key, prefix(c.Name)) && !valid[e.Key] {
				container, _, _ := strings.Cut(strings.TrimPrefix(e.Key, prefix(c.Name)), "/")
				failed = append(failed, p.detach(ctx, d, e.Key, container))
			}
		}
	}
	return coded(errors.Join(failed...))
}
