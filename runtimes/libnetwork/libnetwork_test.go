package libnetwork

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/internal/ownsocket"
	"github.com/usernet/usernet/network"
)

// fakeDaemon keeps networks and attachments in memory.
type fakeDaemon struct {
	mu       sync.Mutex
	networks map[string]network.NetworkSpec // by name, which is the id as well
	attached map[string]network.Container   // by key
}

func (f *fakeDaemon) Network(_ context.Context, ref string) (dockernet.Inspect, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	spec, ok := f.networks[ref]
	if !ok {
		return dockernet.Inspect{}, errdefs.NotFound("network %s not found", ref)
	}
	n := dockernet.Inspect{Network: dockernet.Network{ID: ref, Name: ref, Driver: spec.Driver, Internal: spec.Internal}}
	n.Containers = map[string]dockernet.EndpointResource{}
	for _, p := range spec.Pools {
		n.IPAM.Config = append(n.IPAM.Config,
			dockernet.IPAMConfig{Subnet: p.Subnet, Gateway: p.Gateway, IPRange: p.Range})
	}
	for _, c := range f.attached {
		if e := c.Endpoints[0]; e.NetworkID == ref {
			n.Containers[c.ID] = dockernet.EndpointResource{IPv4Address: e.IPv4}
		}
	}
	return n, nil
}

func (f *fakeDaemon) NetworkCreate(_ context.Context, spec network.NetworkSpec) (api.CreatedNetwork, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.networks[spec.Name]; ok {
		return api.CreatedNetwork{}, errdefs.Conflict("network %s exists", spec.Name)
	}
	if len(spec.Pools) == 0 {
		spec.Pools = []network.Pool{{Subnet: netip.MustParsePrefix("10.200.0.0/24")}}
		if spec.EnableIPv6 != nil && *spec.EnableIPv6 {
			spec.Pools[0].Subnet = netip.MustParsePrefix("fd00:9::/64")
		}
	}
	spec.Pools = slices.Clone(spec.Pools)
	for i := range spec.Pools {
		if !spec.Pools[i].Gateway.IsValid() {
			spec.Pools[i].Gateway = spec.Pools[i].Subnet.Addr().Next()
		}
	}
	f.networks[spec.Name] = spec
	return api.CreatedNetwork{Network: network.Network{ID: spec.Name}}, nil
}

func (f *fakeDaemon) NetworkRemove(_ context.Context, ref string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.networks[ref]; !ok {
		return errdefs.NotFound("network %s not found", ref)
	}
	delete(f.networks, ref)
	return nil
}

func (f *fakeDaemon) Attach(_ context.Context, q api.AttachRequest, netns *os.File) (r api.AttachReply, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.attached[q.Key]; ok {
		c.Endpoints[0].Aliases = q.Spec.Networks[0].Aliases
		return api.AttachReply{Container: c}, nil
	}
	if netns == nil || !q.Moves {
		return r, errdefs.Invalid("it is not to be moved")
	}
	want := q.Spec.Networks[0]
	n := f.networks[want.Network]
	e := &network.Endpoint{NetworkID: want.Network, Interface: want.Interface, Key: q.Key,
		MAC: network.MAC{2, 0, 0, 0, 0, 7}}
	if want.IPv4.IsValid() {
		e.IPv4 = netip.PrefixFrom(want.IPv4, n.Pools[0].Subnet.Bits())
	}
	if !n.Internal {
		e.Gateway4 = n.Pools[0].Gateway
	}
	c := network.Container{ID: "id-of-" + q.Spec.Name, Name: q.Spec.Name, Labels: q.Spec.Labels,
		Endpoints: []*network.Endpoint{e}}
	f.attached[q.Key] = c
	return api.AttachReply{Container: c}, nil
}

func (f *fakeDaemon) Attachments(_ context.Context, prefix string) (list []network.Container, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, c := range f.attached {
		if strings.HasPrefix(k, prefix) {
			list = append(list, c)
		}
	}
	return list, nil
}

func (f *fakeDaemon) Detach(_ context.Context, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.attached, key)
	return nil
}

func (f *fakeDaemon) ContainerRename(_ context.Context, ref, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, c := range f.attached {
		if c.Name == name {
			return errdefs.Conflict("name %s is in use", name)
		}
		if c.ID == ref {
			c.Name = name
			f.attached[k] = c
		}
	}
	return nil
}

func (f *fakeDaemon) PortsAdd(_ context.Context, ref string, ports []network.PortBinding) ([]api.Published, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, c := range f.attached {
		if c.ID == ref {
			c.Ports = append(c.Ports, ports...)
			f.attached[k] = c
		}
	}
	return nil, nil
}

func (f *fakeDaemon) PortsRemove(_ context.Context, ref string, ports []network.PortBinding) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, c := range f.attached {
		if c.ID == ref {
			c.Ports = slices.DeleteFunc(slices.Clone(c.Ports),
				func(b network.PortBinding) bool { return slices.Contains(ports, b) })
			f.attached[k] = c
		}
	}
	return nil
}

// docker is dockerd's side of a plugin's socket.
type docker struct {
	t      *testing.T
	d      *fakeDaemon
	p      *Plugin
	socket string
}

// plugged starts a plugin before a fake daemon, with its state in dir.
func plugged(t *testing.T, d *fakeDaemon, dir, driver string) *docker {
	t.Helper()
	goroutines, open := leak.Goroutines(), leak.Descriptors(t)
	s, err := openState(filepath.Join(dir, "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	p := &Plugin{
		daemon: func(context.Context) (daemon, error) { return d, nil }, state: s, log: slog.New(slog.DiscardHandler),
		netns: func(int) (*os.File, error) { return os.Open(os.DevNull) },
	}
	socket := filepath.Join(dir, "s.sock")
	l, err := ownsocket.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	p.serve(l, driver)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		goroutines.NoneLeft(t)
		open.NoneLeft(t)
	})
	return &docker{t, d, p, socket}
}

// call sends a call as dockerd does, and returns the answer, without spaces.
func (d *docker) call(name, body string) string {
	d.t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", d.socket)
		}}}
	r, err := c.Post("http://plugin/"+name, "", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r.Body); err != nil || r.StatusCode != http.StatusOK {
		d.t.Fatalf("%s: %s, %v", name, r.Status, err)
	}
	return strings.TrimSpace(b.String())
}

// says fails the test where a call's answer does not contain want.
func (d *docker) says(want, name, body string) {
	d.t.Helper()
	if got := d.call(name, body); !strings.Contains(got, want) {
		d.t.Errorf("%s %s: %s, want %s", name, body, got, want)
	}
}

func newFake() *fakeDaemon {
	return &fakeDaemon{networks: map[string]network.NetworkSpec{}, attached: map[string]network.Container{}}
}

const (
	networkID  = "10dfad2751bdba0d4a8357587fa54a0d672fab6096e83c7a3121c9f91e1a8942"
	endpointID = "886bac5c6d819cb7af50c081f0256c849908217067cd9c95f770030ecee71652"
	ids        = `"NetworkID":"` + networkID + `","EndpointID":"` + endpointID + `"`
)

// TestNetworkOfItsOwn is the life of a network that Docker asks for, as it was recorded of Docker 20.10.
func TestNetworkOfItsOwn(t *testing.T) {
	f := newFake()
	d := plugged(t, f, t.TempDir(), network.DriverBridge)
	d.says(`{"Implements":["NetworkDriver","IpamDriver"]}`, "Plugin.Activate", "")
	d.says(`"Scope":"local"`, "NetworkDriver.GetCapabilities", "")
	d.says(`"RequiresMACAddress":false`, "IpamDriver.GetCapabilities", "")
	d.says(`"PoolID":"10.200.0.0/24","Pool":"10.200.0.0/24"`, "IpamDriver.RequestPool", `{"AddressSpace":"usernet","V6":false}`)
	d.says(`"Address":"10.200.0.1/24"`, "IpamDriver.RequestAddress",
		`{"PoolID":"10.200.0.0/24","Options":{"RequestAddressType":"com.docker.network.gateway"}}`)
	d.says(`{}`, "NetworkDriver.CreateNetwork", `{"NetworkID":"`+networkID+`","Options":{"com.docker.network.enable_ipv6":false,
		"com.docker.network.generic":{"com.docker.network.driver.mtu":"1400"}},
		"IPv4Data":[{"AddressSpace":"usernet","Gateway":"10.200.0.1/24","Pool":"10.200.0.0/24"}],"IPv6Data":[]}`)
	name := "docker-" + networkID[:12]
	if n, ok := f.networks[name]; !ok || len(f.networks) != 1 || n.Options["com.docker.network.driver.mtu"] != "1400" ||
		n.Pools[0].Gateway.String() != "10.200.0.1" || n.Labels["usernet.docker"] != networkID {
		t.Fatalf("networks %+v", f.networks)
	}
	var a addressResponse
	if err := json.Unmarshal([]byte(d.call("IpamDriver.RequestAddress", `{"PoolID":"10.200.0.0/24","Options":{}}`)), &a); err != nil {
		t.Fatal(err)
	}
	if p, err := netip.ParsePrefix(a.Address); err != nil || p.Bits() != 24 || p.Addr().As4()[3] < 128 {
		t.Errorf("an address of the upper half: %q", a.Address)
	}
	d.says(`{"Interface":{"MacAddress":"02:00:00:00:00:07"}}`, "NetworkDriver.CreateEndpoint",
		`{`+ids+`,"Interface":{"Address":"`+a.Address+`","AddressIPv6":"","MacAddress":""},"Options":{}}`)
	d.says(`{"InterfaceName":{"SrcName":"un886bac5c6d81","DstPrefix":"eth"},"Gateway":"10.200.0.1","DisableGatewayService":true}`,
		"NetworkDriver.Join", `{`+ids+`,"SandboxKey":"/run/docker/netns/x","Options":{}}`)
	d.says(`{}`, "NetworkDriver.ProgramExternalConnectivity", `{`+ids+`,"Options":{"com.docker.network.portmap":[
		{"Proto":6,"IP":"","Port":80,"HostIP":"0.0.0.0","HostPort":8080,"HostPortEnd":8081},{"Proto":17,"Port":53,"HostIP":"127.0.0.1"}]}}`)
	want := []network.PortBinding{
		{HostPort: 8080, HostEnd: 8081, Port: 80, End: 80, Proto: network.TCP},
		{HostIP: netip.MustParseAddr("127.0.0.1"), Port: 53, End: 53, Proto: network.UDP},
	}
	key := "docker/" + networkID + "/" + endpointID
	if got := f.attached[key].Ports; !slices.Equal(got, want) {
		t.Errorf("published %+v, want %+v", got, want)
	}
	d.says("only tcp and udp", "NetworkDriver.ProgramExternalConnectivity", `{`+ids+`,"Options":{"com.docker.network.portmap":[{"Proto":132,"Port":80}]}}`)
	d.says(`{}`, "NetworkDriver.RevokeExternalConnectivity", `{`+ids+`}`)
	if got := f.attached[key].Ports; len(got) != 0 {
		t.Errorf("ports left: %v", got)
	}
	d.says(`{}`, "NetworkDriver.Leave", `{`+ids+`}`)
	for range 2 {
		d.says(`{}`, "NetworkDriver.DeleteEndpoint", `{`+ids+`}`)
	}
	d.says(`{}`, "IpamDriver.ReleaseAddress", `{"PoolID":"10.200.0.0/24","Address":"10.200.0.200"}`)
	d.says("has no endpoint", "NetworkDriver.Join", `{`+ids+`}`)
	for range 2 {
		d.says(`{}`, "NetworkDriver.DeleteNetwork", `{"NetworkID":"`+networkID+`"}`)
		d.says(`{}`, "IpamDriver.ReleasePool", `{"PoolID":"10.200.0.0/24"}`)
	}
	if len(f.networks) != 0 || len(f.attached) != 0 || len(d.p.state.Networks)+len(d.p.state.Pools) != 0 {
		t.Errorf("left: %v %v %+v", f.networks, f.attached, d.p.state.content)
	}
}

// TestNamedNetworkIsShared has Docker use a network that is there, also after the plugin was started anew, and leave
// it.
func TestNamedNetworkIsShared(t *testing.T) {
	f, dir := newFake(), t.TempDir()
	f.networks["mynet"] = network.NetworkSpec{Name: "mynet", Driver: "bridge", Pools: []network.Pool{
		{Subnet: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1")}}}
	d := plugged(t, f, dir, network.DriverBridge)
	d.says("is not known", "IpamDriver.RequestPool", `{"Options":{"nework":"mynet"}}`)
	d.says(`"PoolID":"10.9.0.0/24"`, "IpamDriver.RequestPool", `{"Options":{"network":"mynet"}}`)
	d.says("the gateway of network mynet is 10.9.0.1", "IpamDriver.RequestAddress",
		`{"PoolID":"10.9.0.0/24","Address":"10.9.0.7","Options":{"RequestAddressType":"com.docker.network.gateway"}}`)
	create := func(pool, more string) string {
		return `{"NetworkID":"` + networkID + `","Options":{` + more + `},"IPv4Data":[{"AddressSpace":"usernet",` +
			`"Gateway":"10.9.0.1/24","Pool":"` + pool + `"}]}`
	}
	d.says("is not internal", "NetworkDriver.CreateNetwork", create("10.9.0.0/24", `"com.docker.network.internal":true`))
	d.says("takes no others", "NetworkDriver.CreateNetwork", create("10.9.0.0/24", `"com.docker.network.generic":{"a":"b"}`))
	d.says("--ipam-opt network=mynet", "NetworkDriver.CreateNetwork", create("172.18.0.0/16", `"com.docker.network.generic":{"network":"mynet"}`))
	d.says("not found", "NetworkDriver.CreateNetwork", create("172.18.0.0/16", `"com.docker.network.generic":{"network":"other"}`))
	d.says(`{}`, "NetworkDriver.CreateNetwork", create("10.9.0.0/24", ""))
	if err := d.p.Close(); err != nil {
		t.Fatal(err)
	}
	d = plugged(t, f, dir, network.DriverBridge)
	d.says("10.9.0.77/24", "IpamDriver.RequestAddress", `{"PoolID":"10.9.0.0/24","Address":"10.9.0.77"}`)
	d.says("is in use", "IpamDriver.RequestAddress", `{"PoolID":"10.9.0.0/24","Address":"10.9.0.77"}`)
	d.says("is in use", "IpamDriver.RequestAddress", `{"PoolID":"10.9.0.0/24","Address":"10.9.1.77"}`)
	d.says(`"Interface"`, "NetworkDriver.CreateEndpoint", `{`+ids+`,"Interface":{"Address":"10.9.0.77/24","MacAddress":"02:42:0a:09:00:4d"}}`)
	d.says("is in use", "IpamDriver.RequestAddress", `{"PoolID":"10.9.0.0/24","Address":"10.9.0.77"}`)
	d.says(`{}`, "NetworkDriver.DeleteEndpoint", `{`+ids+`}`)
	d.says(`{}`, "NetworkDriver.DeleteNetwork", `{"NetworkID":"`+networkID+`"}`)
	d.says(`{}`, "IpamDriver.ReleasePool", `{"PoolID":"10.9.0.0/24"}`)
	if len(f.networks) != 1 {
		t.Errorf("the network that others use is gone: %v", f.networks)
	}
	d.says("is not known here", "NetworkDriver.CreateEndpoint", `{`+ids+`,"Interface":{}}`)
}

// TestDockersOwnAddresses makes a network of a subnet that Docker's default IPAM driver has chosen.
func TestDockersOwnAddresses(t *testing.T) {
	f := newFake()
	d := plugged(t, f, t.TempDir(), network.DriverOverlay)
	d.says(`"ConnectivityScope":"global"`, "NetworkDriver.GetCapabilities", "")
	d.says(`{}`, "NetworkDriver.CreateNetwork", `{"NetworkID":"`+networkID+`","Options":{"com.docker.network.internal":true},
		"IPv4Data":[{"Pool":"172.18.0.0/16","Gateway":"172.18.0.1/16","AuxAddresses":{"router":"172.18.0.9/16"}}]}`)
	n := f.networks["docker-"+networkID[:12]]
	if n.Driver != network.DriverOverlay || !n.Internal || n.Pools[0].Aux["router"].String() != "172.18.0.9" {
		t.Errorf("%+v", n)
	}
	for _, body := range []string{`{`, `{"NetworkID":"x","IPv4Data":[{"Pool":"nothing"}]}`} {
		d.says(`"Err":`, "NetworkDriver.CreateNetwork", body)
	}
	d.says(`"Err":`, "NetworkDriver.CreateNetwork", `{"NetworkID":"`+strings.Repeat("x", maxBody)+`"}`)
	d.says(`"Error":"--ipam-opt slip is not known`, "IpamDriver.RequestPool", `{"Options":{"slip":"x"}}`)
}

// TestAddressesAreChosen compares with a list of all that are free.
func TestAddressesAreChosen(t *testing.T) {
	for _, c := range []struct {
		subnet string
		want   int
	}{{"10.0.0.0/29", 5}, {"10.0.0.0/30", 1}, {"10.0.0.4/31", 2}, {"10.0.0.4/32", 1}, {"fd00::/125", 7}} {
		var p pending
		subnet := netip.MustParsePrefix(c.subnet)
		used := map[netip.Addr]bool{}
		if subnet.Bits() < 30 || c.want == 1 && subnet.Bits() == 30 {
			used[subnet.Addr().Next()] = true // a gateway
		}
		got := map[netip.Addr]bool{}
		for {
			a, ok := p.choose(subnet, used)
			if !ok {
				break
			}
			if !subnet.Contains(a) || used[a] || got[a] {
				t.Fatalf("%s: %s", c.subnet, a)
			}
			got[a] = true
		}
		if len(got) != c.want {
			t.Errorf("%s: %d addresses, want %d: %v", c.subnet, len(got), c.want, got)
		}
		for a := range got {
			p.release(a)
			break
		}
		if _, ok := p.choose(subnet, used); !ok {
			t.Errorf("%s: what was released is not there", c.subnet)
		}
	}
}

// TestAddressesAreOfTheUpperHalf takes all that there are of it before one of the lower, wherever the first was.
func TestAddressesAreOfTheUpperHalf(t *testing.T) {
	subnet := netip.MustParsePrefix("10.0.0.0/28")
	for range 200 {
		var p pending
		for i := range 7 { // 8 to 14; 15 is the broadcast address
			if a, ok := p.choose(subnet, nil); !ok || a.As4()[3] < 8 {
				t.Fatalf("address %d is %s", i+1, a)
			}
		}
		if a, ok := p.choose(subnet, nil); !ok || a.As4()[3] != 1 {
			t.Fatalf("the next is %s", a)
		}
	}
}

// TestNamesComeFromDocker has a container named once Docker's API knows it.
func TestNamesComeFromDocker(t *testing.T) {
	dir, f := t.TempDir(), newFake()
	key := "docker/" + networkID + "/" + endpointID
	f.attached[key] = network.Container{ID: "one", Name: "docker-" + endpointID[:12],
		Labels:    map[string]string{labelEndpoint: endpointID},
		Endpoints: []*network.Endpoint{{Key: key}}}
	socket := filepath.Join(dir, "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var asked sync.WaitGroup
	asked.Add(2) // it is not known at once
	var once [2]sync.Once
	i := 0
	container := `{"Id":"c1","Names":["/web"],"NetworkSettings":{"Networks":{"lan":{"EndpointID":"` + endpointID + `","Aliases":["shop"]}}}}`
	m := http.NewServeMux()
	m.HandleFunc("/containers/json", func(w http.ResponseWriter, _ *http.Request) {
		if i < 2 { // one request at a time
			once[i].Do(asked.Done)
			i++
			_, _ = w.Write([]byte("[]"))
			return
		}
		_, _ = w.Write([]byte("[" + container + "]"))
	})
	m.HandleFunc("/containers/c1/json",
		func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(container)) })
	server := &http.Server{Handler: m}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { _ = server.Close(); served.Wait() })

	n := newNamer(socket, func(context.Context) (daemon, error) { return f, nil }, slog.New(slog.DiscardHandler))
	asked.Wait()
	deadline := time.Now().Add(30 * time.Second)
	for {
		f.mu.Lock()
		c := f.attached[key]
		done := c.Name == "web" && slices.Equal(c.Endpoints[0].Aliases, []string{"shop"})
		f.mu.Unlock()
		if done {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", c)
		}
		time.Sleep(5 * time.Millisecond)
	}
	n.close()
}

// TestLinksForDockerd are there for each socket, also where older ones are.
func TestLinksForDockerd(t *testing.T) {
	in := filepath.Join(t.TempDir(), "plugins")
	for _, dir := range []string{"/old", "/new"} {
		if err := linkSockets(dir, in); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range Drivers() {
		if to, err := os.Readlink(filepath.Join(in, name+".sock")); err != nil || to != "/new/"+name+".sock" {
			t.Errorf("%s: %q, %v", name, to, err)
		}
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(self, filepath.Join(dir, "a/dockerd")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a") + ":" + filepath.Join(dir, "b")
	if p, err := nextDockerd(path); err == nil {
		t.Errorf("its own link is taken for dockerd: %s", p)
	}
	if err := os.WriteFile(filepath.Join(dir, "b/dockerd"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if p, err := nextDockerd(path); err != nil || p != filepath.Join(dir, "b/dockerd") {
		t.Errorf("%s, %v", p, err)
	}
}

// TestAnotherIPAMDriversSubnet is that of a network of its own, though the IPAM driver here has given it to another:
// two of Docker's networks are never one.
func TestAnotherIPAMDriversSubnet(t *testing.T) {
	f := newFake()
	d := plugged(t, f, t.TempDir(), network.DriverBridge)
	create := func(id, space string) {
		d.says(`{}`, "NetworkDriver.CreateNetwork", `{"NetworkID":"`+id+`","IPv4Data":[{"AddressSpace":"`+space+`",
			"Gateway":"10.200.0.1/24","Pool":"10.200.0.0/24"}]}`)
	}
	d.says(`"PoolID":"10.200.0.0/24"`, "IpamDriver.RequestPool", `{"AddressSpace":"usernet","V6":false}`)
	create(networkID, "usernet")
	const other = "2222222222222222222222222222222222222222222222222222222222222222"
	create(other, "LocalDefault")
	if _, made := f.networks["docker-"+other[:12]]; !made || len(f.networks) != 2 {
		t.Errorf("the networks are %v", f.networks)
	}
	d.says(`{}`, "NetworkDriver.DeleteNetwork", `{"NetworkID":"`+other+`"}`)
	if _, there := f.networks["docker-"+networkID[:12]]; !there || len(f.networks) != 1 {
		t.Errorf("after the other one's end there are %v", f.networks)
	}
}
