package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// FuzzPorts holds values of -p that are taken against what the rest of the program relies on.
func FuzzPorts(f *testing.F) {
	for _, s := range []string{"80", "8080:80", "127.0.0.1::80/udp", "[::1]:1-2:3-4/sctp", "8000-9000:80", ":",
		"[]:1:1", "65535-65536:1", "0:0", "1-1:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParsePorts([]string{s})
		if err != nil {
			return
		}
		b := list[0]
		if b.Port == 0 || b.End < b.Port || b.HostEnd < b.HostPort || b.HostPort == 0 && b.HostEnd != 0 {
			t.Errorf("%q was taken as %+v", s, b)
		}
		if n, h := b.End-b.Port, b.HostEnd-b.HostPort; b.HostPort != 0 && n != 0 && n != h {
			t.Errorf("%q maps %d ports to %d", s, h+1, n+1)
		}
		// The same, written out in full, is the same.
		full := fmt.Sprintf("%d-%d/%s", b.Port, b.End, strings.ToUpper(string(b.Proto)))
		host := ""
		if b.HostPort != 0 {
			host = fmt.Sprintf("%d-%d", b.HostPort, b.HostEnd)
		}
		if b.HostIP.IsValid() {
			host = "[" + b.HostIP.String() + "]:" + host
		}
		if host != "" {
			full = host + ":" + full
		}
		again, err := ParsePorts([]string{full})
		if err != nil || again[0] != b {
			t.Errorf("%q is %+v, but %q is %+v, %v", s, b, full, again, err)
		}
	})
}

// FuzzFlags gives the other parsers anything; what --network takes has a name and addresses of the right families.
func FuzzFlags(f *testing.F) {
	for _, s := range []string{"name=a,ip=10.1.0.2,alias=b", "mynet", "name=a,\"alias=b,c\"", "db:alias",
		"host:host-gateway", "six=[::1]", "1-3/udp",
		"name=a,gw-priority=-1,driver-opt=a=b,mac-address=02:00:00:00:00:01,link-local-ip=fe80::1,ip6=fd00::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseAttachment(s); err == nil {
			if a.Network == "" || a.IPv4.IsValid() && !a.IPv4.Is4() || a.IPv6.IsValid() && !a.IPv6.Is6() {
				t.Errorf("%q was taken as %+v", s, a)
			}
			for _, l := range a.LinkLocal {
				if !l.IsLinkLocalUnicast() {
					t.Errorf("%q: %s", s, l)
				}
			}
		}
		if l, err := ParseLink(s); err == nil && (l.Target == "" || l.Alias == "" ||
			strings.Count(l.String(), ":") != 1) {
			t.Errorf("link %q is %q", s, l)
		}
		if h, err := ParseExtraHost(s); err == nil {
			name, ip, _ := strings.Cut(h, ":")
			if _, err := netip.ParseAddr(ip); name == "" || err != nil && ip != "host-gateway" {
				t.Errorf("host %q is %q", s, h)
			}
		}
		if list, err := ParseExpose([]string{s}); err == nil && (len(list) == 0 || list[0].Port == 0) {
			t.Errorf("port %q is %v", s, list)
		}
	})
}

// FuzzStore opens a store with a container and a network of anybody's making. It is refused, or all of the model works
// with it.
func FuzzStore(f *testing.F) {
	id, net := strings.Repeat("a", 64), strings.Repeat("b", 64)
	f.Add(
		`{"id":"`+id+`","name":"c1","status":"running","network_mode":"mynet","endpoints":[{"id":"`+id+`","network_id":"`+net+
			`","network":"mynet","mac":"02:42:0a:01:00:02","ipv4":"10.1.0.2/24"}]}`,
		`{"id":"`+net+`","name":"mynet","driver":"bridge","pools":[{"subnet":"10.1.0.0/24","gateway":"10.1.0.1"}],"enable_ipv4":true}`,
	)
	f.Add(`{"id":"`+id+`","endpoints":[null]}`, `{"id":"","pools":[{}]}`)
	f.Add(`{`, `[]`)
	f.Fuzz(func(t *testing.T, container, mynet string) {
		store := NewMemoryStore()
		_, err := store.Update(t.Context(), func(tx Tx) error {
			return errors.Join(tx.Put(bucketContainers, id, []byte(container)),
				tx.Put(bucketNetworks, net, []byte(mynet)))
		})
		if err != nil {
			t.Fatal(err)
		}
		m, err := Open(store, Options{})
		if err != nil {
			return
		}
		defer m.Close()
		for _, n := range m.Networks() {
			c, _, err := m.CreateContainer(ContainerSpec{NetworkMode: n.Name})
			if err == nil {
				_, _, _ = m.Connect(net, c.ID, EndpointSpec{})
				_, _, _ = m.Disconnect(net, c.ID, true)
				_ = m.RemoveContainer(c.ID)
			}
			_ = m.RemoveNetwork(n.ID)
		}
		for _, c := range m.Containers() {
			for _, e := range c.Endpoints {
				DNSNames(c, e)
			}
			_ = linkVariables("x", "y", c)
			DefaultRouteEndpoint(c, func(id string) *Network { n, _ := m.Network(id); return n })
			_, _ = m.EndContainer(c.ID, func(c *Container) error { c.Status = Exited; return nil })
			_ = m.RemoveContainer(c.ID)
		}
	})
}
