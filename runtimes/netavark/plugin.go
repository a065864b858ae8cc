package netavark

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/client"
	"github.com/usernet/usernet/sandbox"
)

const (
	callLimit  = 30 * time.Second // Podman waits, with a lock held
	endLimit   = 10 * time.Second // of teardown, for each network; a daemon that has not answered finds word of it
	maxRequest = 4 << 20          // bytes on standard input
	keyPrefix  = "netavark/"      // begins the keys of all attachments of netavark's
)

// daemon is what the plugin needs of usernet's; *api.Client has it.
type daemon interface {
	Network(ctx context.Context, ref string) (dockernet.Inspect, error)
	NetworkCreate(ctx context.Context, spec network.NetworkSpec) (api.CreatedNetwork, error)
	Attach(ctx context.Context, q api.AttachRequest, netns *os.File) (api.AttachReply, error)
	Detach(ctx context.Context, key string) error
	DetachLater(key string) error
}

// plugin serves one call.
type plugin struct {
	version string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer // for warnings
	open    func() (daemon, error)
}

// Main serves a call: args are info, create, setup NETNS or teardown NETNS. It returns the exit status.
func Main(version string, args []string) int {
	p := plugin{version, os.Stdin, os.Stdout, os.Stderr, func() (daemon, error) { return client.New("", os.Getenv) }}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	if err := p.run(ctx, args); err != nil {
		_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"error": err.Error()}) // the status says as much
		return 1
	}
	return 0
}

func (p plugin) run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(
			"this is a plugin of netavark: put it into a directory of netavark_plugin_dirs in containers.conf, under the name of the driver",
		)
	}
	want := map[string]int{"info": 1, "create": 1, "setup": 2, "teardown": 2}[args[0]]
	if want == 0 || len(args) != want {
		return fmt.Errorf("%q: give info, create, setup NETNS or teardown NETNS", args)
	}
	if args[0] == "info" {
		return json.NewEncoder(p.stdout).Encode(map[string]string{"version": p.version, "api_version": apiVersion})
	}
	text, err := io.ReadAll(io.LimitReader(p.stdin, maxRequest))
	if err != nil {
		return err
	}
	d, err := p.open()
	if err != nil {
		return err
	}
	switch args[0] {
	case "create":
		return p.create(ctx, d, text)
	case "setup":
		return p.setup(ctx, d, text, args[1])
	}
	return p.teardown(ctx, d, text)
}

// create makes the daemon's network, or takes the one that is there, and answers with its subnets.
func (p plugin) create(ctx context.Context, d daemon, text []byte) error {
	var n podmanNetwork
	all := map[string]any{} // what Podman says besides has to come back
	err := json.Unmarshal(text, &n)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return fmt.Errorf("the network on standard input: %w", err)
	}
	if err := n.check(); err != nil {
		return err
	}
	have, err := ensure(ctx, d, n)
	if err != nil {
		return err
	}
	if err := n.fits(have); err != nil {
		return err
	}
	all["subnets"], all["internal"], all["ipv6_enabled"] = subnetsOf(have, n.Subnets), have.Internal, have.EnableIPv6
	if n.IPAM.Driver == "" { // Podman gives the addresses then, but checks a chosen one only where this is said
		all["ipam_options"] = map[string]string{"driver": "host-local"}
	}
	return json.NewEncoder(p.stdout).Encode(all)
}

// ensure makes the network where it is not there. Two calls may do so at once.
func ensure(ctx context.Context, d daemon, n podmanNetwork) (dockernet.Inspect, error) {
	return client.EnsureNetwork(ctx, d, n.ours(), func(error) (network.NetworkSpec, error) { return n.spec() })
}

// parse reads what setup and teardown are about, and the attachment's key.
func parse(text []byte) (q request, key string, err error) {
	if err := json.Unmarshal(text, &q); err != nil {
		return q, "", fmt.Errorf("the container on standard input: %w", err)
	}
	if q.ContainerID == "" || q.Network.ID == "" {
		return q, "", errors.New("the container on standard input: container_id and network.id are needed")
	}
	return q, keyPrefix + q.Network.ID + "/" + q.ContainerID, nil
}

// setup attaches a container's namespace.
func (p plugin) setup(ctx context.Context, d daemon, text []byte, path string) error {
	q, key, err := parse(text)
	if err != nil {
		return err
	}
	e, err := q.endpoint()
	if err != nil {
		return err
	}
	netns, err := sandbox.OpenNetNS(path)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer netns.Close()
	n, err := ensure(ctx, d, q.Network) // it may have been removed behind Podman's back
	if err != nil {
		return err
	}
	made, err := d.Attach(ctx, api.AttachRequest{Key: key, Spec: network.ContainerSpec{
		Name:        q.ContainerName,
		NetworkMode: q.Network.ours(),
		DNS:         q.Network.DNSServers,
		Labels:      map[string]string{"usernet.container": q.ContainerID},
		Networks:    []network.NamedEndpointSpec{{Network: q.Network.ours(), EndpointSpec: e}},
	}}, netns)
	if err != nil {
		return err
	}
	return json.NewEncoder(p.stdout).Encode(answer(made, n, key))
}

// answer says what the container has on the network. Podman writes the name servers of all its networks to resolv.conf,
// and the same one twice is asked twice: the network that the container was attached to first tells it.
func answer(made api.AttachReply, n dockernet.Inspect, key string) status {
	s := status{
		DNSSearchDomains: []string{}, DNSServerIPs: []string{}, Interfaces: map[string]netInterface{},
	}
	first := true
	for _, e := range made.Endpoints {
		if e.Key != key {
			first = first && !strings.HasPrefix(e.Key, keyPrefix)
			continue
		}
		if first {
			s.DNSServerIPs = []string{client.NameServer}
		}
		i := netInterface{MAC: e.MAC.String(), Subnets: []netAddress{}}
		for _, a := range []netAddress{{e.Gateway4, e.IPv4}, {e.Gateway6, e.IPv6}} {
			if !a.IPNet.IsValid() {
				continue
			}
			if n.Internal {
				a.Gateway = netip.Addr{}
			}
			i.Subnets = append(i.Subnets, a)
		}
		s.Interfaces[e.Interface] = i
	}
	return s
}

// teardown ends an attachment. It is asked for also where the namespace is gone, and where setup has failed. Podman
// removes no container whose teardown fails, so that a daemon that has ended is a warning.
func (p plugin) teardown(ctx context.Context, d daemon, text []byte) error {
	_, key, err := parse(text)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	return client.DetachOrLater(ctx, d, key, p.stderr)
}
