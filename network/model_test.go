package network

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/ports"
)

func create(t *testing.T, m *Model, name, net string) *Container {
	t.Helper()
	c, _, err := m.CreateContainer(ContainerSpec{Name: name, NetworkMode: net})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAddressesAreTheLowestFreeAndComeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	m := open(t, path)
	n, _, err := m.CreateNetwork(NetworkSpec{Name: "mynet"})
	if err != nil {
		t.Fatal(err)
	}
	if got := n.Pools[0].Subnet.String(); got != "172.18.0.0/16" {
		t.Fatalf("first user-defined network is %s", got)
	}
	a, b := create(t, m, "c1", "mynet"), create(t, m, "c2", "mynet")
	if a.Endpoints[0].IPv4.String() != "172.18.0.2/16" || b.Endpoints[0].IPv4.String() != "172.18.0.3/16" {
		t.Fatalf("%s %s", a.Endpoints[0].IPv4, b.Endpoints[0].IPv4)
	}
	if got := a.Endpoints[0].MAC.String(); got != "02:42:ac:12:00:02" {
		t.Fatalf("MAC %s", got)
	}
	if err := m.RemoveContainer("c1"); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = open(t, path)
	defer m.Close()
	if c := create(t, m, "c3", "mynet"); c.Endpoints[0].IPv4.String() != "172.18.0.2/16" {
		t.Fatalf("address did not come back: %s", c.Endpoints[0].IPv4)
	}
	if err := m.RemoveNetwork("mynet"); err == nil || !strings.Contains(err.Error(), "has active endpoints") {
		t.Fatal(err)
	}
}

func TestRefusalsHaveDockersTexts(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "db"))
	defer m.Close()
	for want, try := range map[string]func() error{
		"bridge is a pre-defined network and cannot be removed": func() error { return m.RemoveNetwork("bridge") },
		"network nope not found":                                func() error { return m.RemoveNetwork("nope") },
		"invalid pool request: Pool overlaps with other one on this address space": func() error {
			_, _, err := m.CreateNetwork(NetworkSpec{Name: "x",
				Pools: []Pool{{Subnet: netip.MustParsePrefix("172.17.0.0/24")}}})
			return err
		},
		"user specified IP address is supported on user defined networks only": func() error {
			_, _, err := m.CreateContainer(ContainerSpec{
				Name: "cx",
				Networks: []NamedEndpointSpec{{Network: "bridge",
					EndpointSpec: EndpointSpec{IPv4: netip.MustParseAddr("172.17.0.9")}}},
			})
			return err
		},
	} {
		err := try()
		if !errdefs.Classified(err) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := m.Container("cx"); err == nil {
		t.Error("a refused container was stored")
	}
}

func TestPortGrammar(t *testing.T) {
	good := map[string]PortBinding{
		"80":      {Port: 80, End: 80, Proto: TCP},
		"8080:80": {HostPort: 8080, HostEnd: 8080, Port: 80, End: 80, Proto: TCP},
		"127.0.0.1:8080:80/udp": {
			HostIP:   netip.MustParseAddr("127.0.0.1"),
			HostPort: 8080,
			HostEnd:  8080,
			Port:     80,
			End:      80,
			Proto:    UDP,
		},
		"127.0.0.1::80": {HostIP: netip.MustParseAddr("127.0.0.1"), Port: 80, End: 80, Proto: TCP},
		"[::1]:8080:80": {
			HostIP:   netip.MustParseAddr("::1"),
			HostPort: 8080,
			HostEnd:  8080,
			Port:     80,
			End:      80,
			Proto:    TCP,
		},
		"::1:8080:80": {
			HostIP:   netip.MustParseAddr("::1"),
			HostPort: 8080,
			HostEnd:  8080,
			Port:     80,
			End:      80,
			Proto:    TCP,
		},
		"8000-8100:9000-9100": {HostPort: 8000, HostEnd: 8100, Port: 9000, End: 9100, Proto: TCP},
		"8000-9000:80":        {HostPort: 8000, HostEnd: 9000, Port: 80, End: 80, Proto: TCP},
	}
	for in, want := range good {
		got, err := ParsePorts([]string{in})
		if err != nil || got[0] != want {
			t.Errorf("%s: %+v %v", in, got, err)
		}
	}
	for _, in := range []string{"", ":", "0", "65536", "80/icmp", "9-8:1-2", "1-3:1-2", "x:80", "1.2.3:80:80", "80:",
		"8080:80:"} {
		if got, err := ParsePorts([]string{in}); err == nil {
			t.Errorf("%q was taken as %+v", in, got)
		}
	}
}

func TestPortsColumn(t *testing.T) {
	bound := func(host string, port uint16, proto Protocol) ports.Bound {
		return ports.Bound{Host: netip.MustParseAddrPort(host), Port: port, Proto: proto}
	}
	for _, test := range []struct {
		want    string
		bound   []ports.Bound
		exposed []PortProto
	}{
		{"", nil, nil},
		{"80/tcp", nil, []PortProto{{Port: 80, Proto: TCP}}},
		{"53/udp, 80-82/tcp", nil, []PortProto{{Port: 82, Proto: TCP}, {Port: 80, Proto: TCP}, {Port: 53, Proto: UDP},
			{Port: 81, Proto: TCP}}},
		{"0.0.0.0:8080->80/tcp, [::]:8080->80/tcp", []ports.Bound{bound("[::]:8080", 80, TCP), bound("0.0.0.0:8080", 80,
			TCP)}, []PortProto{{Port: 80, Proto: TCP}}},
		{"127.0.0.1:80-81->80-81/tcp", []ports.Bound{bound("127.0.0.1:81", 81, TCP), bound("127.0.0.1:80", 80, TCP)},
			nil},
		{"0.0.0.0:8000-8002->80-82/tcp, [::]:8000-8002->80-82/tcp", []ports.Bound{bound("0.0.0.0:8000", 80, TCP),
			bound("[::]:8000", 80, TCP),
			bound("0.0.0.0:8001", 81, TCP), bound("[::]:8001", 81, TCP), bound("0.0.0.0:8002", 82, TCP),
			bound("[::]:8002", 82, TCP)}, nil},
		{"0.0.0.0:90->90/tcp, 1000/tcp, 0.0.0.0:9090->80/udp, 127.0.0.1:8080->80/tcp",
			[]ports.Bound{bound("127.0.0.1:8080", 80, TCP),
				bound("0.0.0.0:9090", 80, UDP), bound("0.0.0.0:90", 90, TCP)}, []PortProto{{Port: 1000, Proto: TCP}}},
	} {
		if got := FormatPorts(test.bound, test.exposed); got != test.want {
			t.Errorf("%s, want %s", got, test.want)
		}
	}
}
