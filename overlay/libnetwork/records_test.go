package libnetwork

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/usernet/usernet/overlay"
)

// Records of Docker 20.10.24.
const (
	dockersID = "10dfad2751bdba0d4a8357587fa54a0d672fab6096e83c7a3121c9f91e1a8942"
	dockersEP = "886bac5c6d819cb7af50c081f0256c849908217067cd9c95f770030ecee71652"

	dockersNetwork = `{"addrSpace":"GlobalDefault","attachable":false,"configFrom":"","configOnly":false,` +
		`"created":"2026-11-28T11:25:05.741515791Z","enableIPv6":false,"generic":{"com.docker.network.enable_ipv6":` +
		`false,"com.docker.network.generic":{}},"id":"` + dockersID + `","inDelete":false,"ingress":false,` +
		`"internal":false,"ipamOptions":{},"ipamType":"default","ipamV4Config":"[{\"PreferredPool\":\"10.50.0.0/24\",` +
		`\"SubPool\":\"\",\"Gateway\":\"\",\"AuxAddresses\":null}]","ipamV4Info":"[{\"IPAMData\":\"{\\\"AddressSpace` +
		`\\\":\\\"GlobalDefault\\\",\\\"Gateway\\\":\\\"10.50.0.1/24\\\",\\\"Pool\\\":\\\"10.50.0.0/24\\\"}\",` +
		`\"PoolID\":\"GlobalDefault/10.50.0.0/24\"}]","labels":{},"loadBalancerIP":"","loadBalancerMode":"NAT",` +
		`"name":"ov1","networkType":"overlay","persist":true,"postIPv6":false,"scope":"global"}`
	dockersOverlay  = `{"mtu":0,"secure":false,"subnets":[{"SubnetIP":"10.50.0.0/24","GwIP":"10.50.0.1/24","Vni":256}]}`
	dockersEndpoint = `{"anonymous":false,"disableResolution":false,"ep_iface":{"addr":"10.50.0.2/24","dstPrefix":"eth",` +
		`"mac":"02:42:0a:32:00:02","routes":null,"srcName":"veth677505c","v4PoolID":"GlobalDefault/10.50.0.0/24",` +
		`"v6PoolID":""},"exposed_ports":[],"generic":{"com.docker.network.endpoint.exposedports":[],` +
		`"com.docker.network.portmap":[]},"id":"` + dockersEP + `","ingressPorts":null,"joinInfo":{"StaticRoutes":null,` +
		`"disableGatewayService":false},"loadBalancer":false,"locator":"10.99.0.1","myAliases":["6e4e8d00509d"],` +
		`"name":"c1","sandbox":"7806f81f291074cc79b6d2f11586528125068f0356311af315ef71f3f32374d4","svcAliases":null,` +
		`"svcID":"","svcName":"","virtualIP":"\u003cnil\u003e"}`
	dockersPools = `{"Scope":"global","Subnets":{"GlobalDefault/10.50.0.0/24":{"ParentKey":{"AddressSpace":"",` +
		`"Subnet":"","ChildSubnet":""},"Pool":"10.50.0.0/24","RefCount":1}}}`
)

// TestNetworksOfDocker reads what a daemon has written of a network, and refuses what cannot be one here.
func TestNetworksOfDocker(t *testing.T) {
	n, err := decodeNetwork([]byte(dockersNetwork), []byte(dockersOverlay))
	if err != nil {
		t.Fatal(err)
	}
	p := n.Pools[0]
	if n.ID != dockersID || n.Name != "ov1" || n.VNI != 256 || n.Driver != "overlay" || n.Scope != "global" ||
		n.Settings().Encrypted || p.Subnet.String() != "10.50.0.0/24" || p.Gateway.String() != "10.50.0.1" ||
		!p.Configured {
		t.Errorf("it is %+v", n)
	}
	for was, test := range map[string]struct{ is, want string }{
		`"networkType":"overlay"`:     {`"networkType":"macvlan"`, errNotOurs.Error()},
		`"inDelete":false`:            {`"inDelete":true`, errNotOurs.Error()},
		`"scope":"global"`:            {`"scope":"local"`, errNotOurs.Error()},
		`"enableIPv6":false`:          {`"enableIPv6":true`, "IPv6"},
		`"ipamType":"default"`:        {`"ipamType":"other"`, `"other"`},
		`\"10.50.0.1/24\`:             {`\"10.51.0.1/24\`, "gateway"},
		`\"Pool\\\":\\\"10.50.0.0/24`: {`\"Pool\\\":\\\"10.50.0.7/24`, "subnet"},
		`"id":"1`:                     {`"id":"X`, errRecord.Error()},
		`"secure":false`:              {`"secure":true`, "IPsec"},
		`"Vni":256`:                   {`"Vni":16777215`, "number on the wire"},
		`"subnets":[`:                 {`"subnet":[`, "number on the wire"},
		`{"addrSpace"`:                {`"addrSpace"`, errRecord.Error()},
	} {
		text := strings.Replace(dockersNetwork, was, test.is, 1)
		driver := strings.Replace(dockersOverlay, was, test.is, 1)
		if text == dockersNetwork && driver == dockersOverlay {
			t.Errorf("%s is in neither record", was)
		}
		n, err := decodeNetwork([]byte(text), []byte(driver))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %+v, %v; want %q", test.is, n, err, test.want)
		}
	}
}

// TestEndpointsOfDocker reads what a daemon has written of an endpoint, and refuses what is no endpoint of the network.
func TestEndpointsOfDocker(t *testing.T) {
	n, err := decodeNetwork([]byte(dockersNetwork), []byte(dockersOverlay))
	if err != nil {
		t.Fatal(err)
	}
	e, err := decodeEndpoint(Pair{Value: []byte(dockersEndpoint)}, n)
	if err != nil || e.EndpointID != dockersEP || e.Addrs[0].String() != "10.50.0.2" || e.MAC.String() !=
		"02:42:0a:32:00:02" || e.At.String() != "10.99.0.1" || e.Host != "10.99.0.1" || !e.Running || e.Owner != "" ||
		!slices.Equal(e.DNSNames, []string{"c1", "6e4e8d00509d"}) {
		t.Fatalf("it is %+v, %v", e, err)
	}
	for was, is := range map[string]string{
		`"locator":"10.99.0.1"`:     `"locator":"127.0.0.1"`,
		`"10.50.0.2/24"`:            `"10.51.0.2/24"`,
		`"addr":"10.50.0.2`:         `"addr":"10.50.0.1`,
		`"mac":"02`:                 `"mac":"03`,
		`:"02:42:0a:32:00:02"`:      `:"02:42:0a:32:00"`,
		`"id":"8`:                   `"id":"`,
		`"myAliases":["`:            `"myAliases":[` + strings.Repeat(`"a",`, maxAliases) + `"`,
		`"name":"c1"`:               `"name":"` + strings.Repeat("c", maxName+1) + `"`,
		`"disableResolution":false`: `"disableResolution":1`,
	} {
		text := strings.Replace(dockersEndpoint, was, is, 1)
		if text == dockersEndpoint {
			t.Errorf("%s is not in the record", was)
		}
		if e, err := decodeEndpoint(Pair{Value: []byte(text)}, n); err == nil {
			t.Errorf("with %.60s it is %+v", is, e)
		}
	}
	for was, want := range map[string][]string{
		`"anonymous":false`:         {"6e4e8d00509d"},
		`"disableResolution":false`: nil,
	} {
		text := strings.Replace(dockersEndpoint, was, strings.Replace(was, "false", "true", 1), 1)
		if e, err := decodeEndpoint(Pair{Value: []byte(text)}, n); err != nil || !slices.Equal(e.DNSNames, want) {
			t.Errorf("without %s: %+v, %v", was, e, err)
		}
	}
}

// TestRecordsHaveDockersFields compares the fields of what is written here with those that a daemon writes.
func TestRecordsHaveDockersFields(t *testing.T) {
	n, err := decodeNetwork([]byte(dockersNetwork), []byte(dockersOverlay))
	if err != nil {
		t.Fatal(err)
	}
	network := text(newNetworkRecord(n))
	e := overlay.Endpoint{EndpointID: dockersEP, Container: dockersID, Name: "c1",
		Addrs: []netip.Addr{netip.MustParseAddr("10.50.0.2")}}
	endpoint, err := encodeEndpoint(e, n.Pools[0].Subnet, "host", netip.MustParseAddr("10.99.0.3"))
	if err != nil {
		t.Fatal(err)
	}
	for docker, own := range map[string]string{dockersNetwork: network, dockersEndpoint: string(endpoint)} {
		if a, b := types(t, docker), types(t, own); !reflect.DeepEqual(a, b) {
			t.Errorf("Docker's: %v\nown: %v", a, b)
		}
	}
	again, err := decodeNetwork([]byte(network), []byte(dockersOverlay))
	if err != nil || !reflect.DeepEqual(again, n) {
		t.Errorf("what was written is read as %+v, %v; want %+v", again, err, n)
	}
	if again, err := decodeEndpoint(Pair{Value: endpoint}, n); err != nil || again.Owner != "host" || !again.Running {
		t.Errorf("what was written is read as %+v, %v", again, err)
	}
}

// types are the types of all fields of an object.
func types(t *testing.T, text string) map[string]string {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for name, v := range all {
		if name != "exposed_ports" && name != "ingressPorts" && name != "svcAliases" {
			found[name] = reflect.TypeOf(v).String()
		}
	}
	return found
}

// FuzzRecords reads what is in a store.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(dockersNetwork), []byte(dockersOverlay), []byte(dockersEndpoint))
	f.Add([]byte(`{"ipamV4Info":"[{\"IPAMData\":\"{}\"}]"}`), []byte(`{"subnets":[]}`), []byte(`{"generic":{}}`))
	f.Fuzz(func(t *testing.T, network, driver, endpoint []byte) {
		n, err := decodeNetwork(network, driver)
		if err != nil {
			if n, err = decodeNetwork([]byte(dockersNetwork), []byte(dockersOverlay)); err != nil {
				t.Fatal(err)
			}
		}
		if e, err := decodeEndpoint(Pair{Value: endpoint}, n); err == nil && !n.Pools[0].Subnet.Contains(e.Addrs[0]) {
			t.Errorf("an endpoint at %v", e.Addrs)
		}
	})
}

// TestPeerQueries reads questions of the gossip.
func TestPeerQueries(t *testing.T) {
	for payload, want := range map[string]string{
		dockersID + " 10.50.0.3":        "10.50.0.3",
		dockersID + " ::ffff:10.50.0.3": "10.50.0.3",
		dockersID:                       "",
		dockersID + " 10.50.0.3 x":      "",
		dockersID[1:] + " 10.50.0.3":    "",
		dockersID + " there":            "",
		dockersID + strings.Repeat(" ", maxQuery) + "10.50.0.3": "",
	} {
		id, a, ok := parsePeerQuery([]byte(payload))
		if ok != (want != "") || ok && (id != dockersID || a.String() != want) {
			t.Errorf("%.90q is %s %v, %v", payload, id, a, ok)
		}
	}
}
