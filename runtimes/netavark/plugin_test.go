package netavark

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// recorder is a daemon with one network at most, that notes what it is asked.
type recorder struct {
	spec     *network.NetworkSpec
	attached []api.AttachRequest
	detached []string
	gone     error // what Detach returns
	said     strings.Builder
}

func (r *recorder) Network(_ context.Context, ref string) (n dockernet.Inspect, err error) {
	if r.spec == nil || ref != r.spec.Name {
		return n, fmt.Errorf("network %s: %w", ref, errdefs.ErrNotFound)
	}
	n.Name, n.Internal, n.Driver = ref, r.spec.Internal, r.spec.Driver
	for _, p := range r.spec.Pools {
		n.IPAM.Config = append(n.IPAM.Config, dockernet.IPAMConfig{Subnet: p.Subnet, Gateway: p.Gateway})
	}
	return n, nil
}

func (r *recorder) NetworkCreate(_ context.Context, spec network.NetworkSpec) (api.CreatedNetwork, error) {
	if len(spec.Pools) == 0 {
		spec.Pools = []network.Pool{{Subnet: netip.MustParsePrefix("172.18.0.0/16"),
			Gateway: netip.MustParseAddr("172.18.0.1")}}
	}
	r.spec = &spec
	return api.CreatedNetwork{}, nil
}

func (r *recorder) Attach(_ context.Context, q api.AttachRequest, _ *os.File) (api.AttachReply, error) {
	r.attached = append(r.attached, q)
	e := q.Spec.Networks[0]
	return api.AttachReply{Container: network.Container{Endpoints: []*network.Endpoint{{
		Key: q.Key, Interface: e.Interface, MAC: network.MAC{2, 0x42}, IPv4: netip.MustParsePrefix("172.18.0.2/16"),
		Gateway4: netip.MustParseAddr("172.18.0.1"),
	}}}}, nil
}

func (r *recorder) Detach(_ context.Context, key string) error {
	r.detached = append(r.detached, key)
	return r.gone
}

func (r *recorder) DetachLater(string) error { return nil }

// call runs the plugin.
func (r *recorder) call(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	open := func() (daemon, error) { return r, nil }
	err := plugin{"1.2.3", strings.NewReader(stdin), &out, &r.said, open}.run(t.Context(), args)
	return strings.TrimSpace(out.String()), err
}

func TestANetworkKeepsWhatPodmanSaysOfIt(t *testing.T) {
	r := &recorder{}
	out, err := r.call(t, `{"name": "n1", "id": "4937", "driver": "usernet", "created": "2024-01-01T00:00:00Z", "dns_enabled": true, "internal": true,
		"ipv6_enabled": false, "options": {"usernet.egress": "deny"}, "ipam_options": {"driver": "host-local"}}`, "create")
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal([]byte(out), &back); err != nil {
		t.Fatal(err)
	}
	if back["name"] != "n1" || back["id"] != "4937" || back["driver"] != "usernet" || back["dns_enabled"] != true ||
		back["created"] != "2024-01-01T00:00:00Z" {
		t.Errorf("the answer: %s", out)
	}
	if !strings.Contains(out, `"subnets":[{"subnet":"172.18.0.0/16","gateway":"172.18.0.1","lease_range":{"start_ip":"172.18.128.0","end_ip":"172.18.255.254"}}]`) {
		t.Errorf("the answer has not the subnet that was drawn: %s", out)
	}
	if !r.spec.Internal || r.spec.Options["usernet.egress"] != "deny" {
		t.Errorf("the network: %+v", r.spec)
	}
	if _, err := r.call(t, `{"name": "n1", "id": "4938", "driver": "usernet", "subnets": [{"subnet": "10.0.0.0/24"}]}`, "create"); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("another subnet for a network that is there: %v", err)
	}
}

// TestPodmanIsToldWhoGivesAddresses: where the user does not say, it is Podman.
func TestPodmanIsToldWhoGivesAddresses(t *testing.T) {
	for given, want := range map[string]string{
		"":                                     `"ipam_options":{"driver":"host-local"}`,
		`, "ipam_options": {"driver": "none"}`: `"ipam_options":{"driver":"none"}`,
	} {
		out, err := (&recorder{}).call(t, `{"name": "n1", "id": "4937", "driver": "usernet"`+given+`}`, "create")
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %s, %v; want %s", given, out, err, want)
		}
	}
}

// TestNetworksThatCannotBe are refused with the reason: what Podman asks for would be without effect.
func TestNetworksThatCannotBe(t *testing.T) {
	for keys, want := range map[string]string{
		`"internal": true`:                   "not internal",
		`"routes": [{"destination": "x"}]`:   "--route",
		`"network_interface": "br0"`:         "--interface-name br0",
		`"ipam_options": {"driver": "dhcp"}`: "--ipam-driver dhcp",
		`"options": {"network": "none"}`:     "name another",
	} {
		r := &recorder{spec: &network.NetworkSpec{Name: "n1"}}
		if strings.Contains(keys, "none") {
			r.spec = &network.NetworkSpec{Name: network.NoneName, Driver: network.DriverNull}
		}
		if out, err := r.call(t, `{"name": "n1", "id": "1", `+keys+`}`, "create"); err == nil || !strings.Contains(
			err.Error(), want) {
			t.Errorf("%s: %q, %v, want %q", keys, out, err, want)
		}
	}
	r := &recorder{}
	if _, err := r.call(t, `{"name": "n1", "id": "1", "options": {"mtu": "1400"}}`, "create"); err != nil ||
		r.spec.Options[optionMTU] != "1400" || len(r.spec.Options) != 1 {
		t.Errorf("Podman's option mtu: %+v, %v", r.spec, err)
	}
}

func TestAContainerComesAndGoes(t *testing.T) {
	r := &recorder{}
	request := `{"container_id": "c1", "container_name": "web", "network": {"name": "n1", "id": "4937", "network_dns_servers": ["192.0.2.53"]},
		"network_options": {"aliases": ["shop"], "interface_name": "eth0", "static_ips": ["172.18.0.2"], "static_mac": "02:00:00:00:00:09"},
		"port_mappings": [{"container_port": 80, "host_port": 8080, "protocol": "tcp", "host_ip": "", "range": 1}]}`
	out, err := r.call(t, request, "setup", "/proc/self/ns/net")
	want := `{"dns_search_domains":[],"dns_server_ips":["127.0.0.11"],"interfaces":{"eth0":{"mac_address":"02:42:00:00:00:00",` +
		`"subnets":[{"gateway":"172.18.0.1","ipnet":"172.18.0.2/16"}]}}}`
	if err != nil || out != want {
		t.Errorf("%s, %v\nwant %s", out, err, want)
	}
	q := r.attached[0]
	if q.Key != "netavark/4937/c1" || q.Spec.Name != "web" || len(q.Spec.Ports) != 0 ||
		fmt.Sprint(q.Spec.Networks[0].Aliases) != "[shop]" {
		t.Errorf("%+v", q)
	}
	if out, err := r.call(t, request, "teardown", "/gone"); err != nil || out != "" || fmt.Sprint(r.detached) !=
		"[netavark/4937/c1]" {
		t.Errorf("teardown: %q, %v, %v", out, err, r.detached)
	}
	r.gone = fmt.Errorf("%w (%w)", api.ErrNoDaemon, syscall.ECONNREFUSED)
	if out, err := r.call(t, request, "teardown", "/gone"); err != nil || out != "" ||
		!strings.Contains(r.said.String(), "warning: no usernet daemon answers") {
		t.Errorf("teardown without a daemon: %q, %v, said %q", out, err, r.said.String())
	}
}

func TestPodmanChoosesFromTheUpperHalf(t *testing.T) {
	for subnet, want := range map[string]string{
		"10.88.7.0/24": "10.88.7.128 10.88.7.254", "10.0.0.0/8": "10.128.0.0 10.255.255.254",
		"10.0.0.0/29": "10.0.0.4 10.0.0.6", "10.0.0.0/30": "",
		"fd00:88::/64": "fd00:88:0:0:8000:: fd00:88::ffff:ffff:ffff:fffe",
	} {
		got := ""
		if r := upperHalf(netip.MustParsePrefix(subnet)); r != nil {
			got = fmt.Sprintf("%v %v", r.Start, r.End)
		}
		if want != "" {
			start, end, _ := strings.Cut(want, " ")
			want = fmt.Sprintf("%v %v", netip.MustParseAddr(start), netip.MustParseAddr(end))
		}
		if got != want {
			t.Errorf("%s: %s, want %s", subnet, got, want)
		}
	}
}

func TestInfoAndBadCalls(t *testing.T) {
	r := &recorder{}
	if out, err := r.call(t, "", "info"); err != nil || out != `{"api_version":"1.0.0","version":"1.2.3"}` {
		t.Errorf("%s, %v", out, err)
	}
	for name, test := range map[string]struct {
		stdin string
		args  []string
		want  string
	}{
		"nothing":      {"", nil, "netavark_plugin_dirs"},
		"a verb":       {"", []string{"update"}, "give info"},
		"no namespace": {"", []string{"setup"}, "give info"},
		"no JSON":      {"{", []string{"create"}, "standard input"},
		"no ids":       {"{}", []string{"setup", "/proc/self/ns/net"}, "container_id"},
		"no file":      {`{"container_id": "c", "network": {"id": "n", "name": "n"}}`, []string{"setup", "/nonexistent"}, "/nonexistent"},
		"two addresses": {`{"container_id": "c", "network": {"id": "n", "name": "n"}, "network_options": {"static_ips": ["10.0.0.1", "10.0.0.2"]}}`,
			[]string{"setup", "/proc/self/ns/net"}, "one of each family"},
	} {
		if _, err := r.call(t, test.stdin, test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
