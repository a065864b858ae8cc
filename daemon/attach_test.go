package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

func TestAddressesForTheLoopbackInterface(t *testing.T) {
	for name, test := range map[string]struct {
		dns   string
		local []string
		ok    bool
	}{
		"none":                          {ok: true},
		"a name server's":               {dns: "10.0.2.3", ok: true},
		"a name server's on loopback":   {dns: "127.0.0.53", ok: true},
		"a link-local name server's":    {dns: "169.254.1.1", ok: true},
		"an IPv6 name server's":         {dns: "2001:db8::1"},
		"a mapped name server's":        {dns: "::ffff:10.0.2.3"},
		"all name servers'":             {dns: "0.0.0.0"},
		"a multicast name server's":     {dns: "224.0.0.251"},
		"a broadcast name server's":     {dns: "255.255.255.255"},
		"services'":                     {local: []string{"10.0.2.4", "169.254.169.254"}, ok: true},
		"as many as there may be":       {local: slices.Repeat([]string{"10.0.2.4"}, maxLocalAddrs), ok: true},
		"one too many":                  {local: slices.Repeat([]string{"10.0.2.4"}, maxLocalAddrs+1)},
		"one of loopback's own":         {local: []string{"127.0.0.2"}},
		"a group's":                     {local: []string{"10.0.2.4", "239.0.0.1"}},
		"a link-local group's":          {local: []string{"224.0.0.1"}},
		"IPv6":                          {local: []string{"2001:db8::1"}},
		"no address of one machine":     {local: []string{"0.0.0.0"}},
		"a good one, and a good server": {dns: "10.0.2.3", local: []string{"10.0.2.4"}, ok: true},
	} {
		var spec network.ContainerSpec
		if test.dns != "" {
			spec.DNSAddr = netip.MustParseAddr(test.dns)
		}
		for _, a := range test.local {
			spec.LocalAddrs = append(spec.LocalAddrs, netip.MustParseAddr(a))
		}
		if err := checkLocalAddrs(spec); (err == nil) != test.ok || err != nil && !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := checkLocalAddrs(network.ContainerSpec{LocalAddrs: []netip.Addr{{}}}); err == nil {
		t.Error("no address is taken for one")
	}
}

// TestAddressesOfTheNameServer is on the loopback interface where it is none of loopback's own.
func TestAddressesOfTheNameServer(t *testing.T) {
	other := netip.MustParseAddr("10.0.2.4")
	for dns, want := range map[string]string{
		"":           "127.0.0.11:53 [10.0.2.4]",
		"127.0.0.53": "127.0.0.53:53 [10.0.2.4]",
		"10.0.2.3":   "10.0.2.3:53 [10.0.2.4 10.0.2.3]",
	} {
		c := &network.Container{LocalAddrs: make([]netip.Addr, 1, 2)}
		c.LocalAddrs[0] = other
		if dns != "" {
			c.DNSAddr = netip.MustParseAddr(dns)
		}
		if got := fmt.Sprint(stubAddrOf(c), " ", localAddrs(c)); got != want {
			t.Errorf("%q: %s, want %s", dns, got, want)
		}
		if got := c.LocalAddrs[:2][1]; got.IsValid() {
			t.Errorf("%q: the record has become %v", dns, c.LocalAddrs[:2])
		}
	}
}

// attachSpec is how a runtime asks for networks of a namespace, with a key.
func attachSpec(key string, id uint64, on ...string) network.ContainerSpec {
	spec := network.ContainerSpec{Name: "box", Attached: true, NetNSID: network.NamespaceID{Dev: 1, Ino: id}}
	for _, name := range on {
		spec.Networks = append(spec.Networks,
			network.NamedEndpointSpec{Network: name, EndpointSpec: network.EndpointSpec{Key: key}})
	}
	return spec
}

// namespace is a descriptor that stands for one; the fake sandboxes look at none.
func namespace(t *testing.T) *os.File {
	t.Helper()
	f := os.NewFile(uintptr(nowhere(t)), "netns")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// keys are the networks that a container is on, and by which keys.
func keys(t *testing.T, d *Daemon, id string) string {
	t.Helper()
	c, err := d.Container(id)
	if err != nil {
		return "gone"
	}
	var list []string
	for _, e := range c.Endpoints {
		list = append(list, e.Network+":"+e.Key)
	}
	return strings.Join(list, " ")
}

// attachTwice attaches a namespace to network one with the key k1, and to two with k2.
func attachTwice(t *testing.T, d *Daemon) *network.Container {
	t.Helper()
	pid, _ := self(t)
	makeNetworks(t, d, network.NetworkSpec{Name: "one"}, network.NetworkSpec{Name: "two"})
	c, err := d.attachFirst(t.Context(), attachSpec("k1", 1, "one"), api.Started{Holder: pid}, namespace(t))
	if err == nil {
		_, err = d.attachMore(t.Context(), c, attachSpec("k2", 1, "two"))
	}
	if err == nil {
		c, err = d.Container(c.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestARefusedAttachLeavesNoInterface publishes a port that another socket has: the namespace may go on without
// usernet.
func TestARefusedAttachLeavesNoInterface(t *testing.T) {
	d, f := newFakeDaemon(t)
	pid, _ := self(t)
	makeNetworks(t, d, network.NetworkSpec{Name: "one"}, network.NetworkSpec{Name: "two"})
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	ports := []network.PortBinding{{HostIP: netip.MustParseAddr("127.0.0.1"),
		HostPort: uint16(taken.Addr().(*net.TCPAddr).Port), Port: 80, Proto: network.TCP}}
	spec := attachSpec("k1", 1, "one")
	spec.Ports = ports
	if _, err := d.attachFirst(t.Context(), spec, api.Started{Holder: pid}, namespace(t)); err == nil {
		t.Fatal("a port that is taken was published")
	}
	if got := f.asked(); !strings.HasSuffix(got, "remove eth0") {
		t.Errorf("asked of the namespace of a first attachment: %s", got)
	}

	c, err := d.attachFirst(t.Context(), attachSpec("k1", 1, "one"), api.Started{Holder: pid}, namespace(t))
	if err != nil {
		t.Fatal(err)
	}
	more := attachSpec("k2", 1, "two")
	more.Ports = ports
	if _, err := d.attachMore(t.Context(), c, more); err == nil {
		t.Fatal("a port that is taken was published")
	}
	if got := keys(t, d, c.ID); got != "one:k1" {
		t.Errorf("after a refused second attachment it is on %s", got)
	}
}

// TestANamespaceIsOneContainer attaches a namespace again and again: the same key changes nothing, another one adds.
func TestANamespaceIsOneContainer(t *testing.T) {
	d, f := newFakeDaemon(t)
	c := attachTwice(t, d)
	if got := keys(t, d, c.ID); got != "one:k1 two:k2" {
		t.Errorf("it is on %s", got)
	}
	if at := d.attachedIn(c.NetNSID); at == nil || at.ID != c.ID {
		t.Errorf("the namespace is that of %+v", at)
	}
	if at := d.attachedIn(network.NamespaceID{Dev: 1, Ino: 9}); at != nil {
		t.Errorf("a namespace that was not attached is that of %+v", at)
	}
	f.asked()
	same, err := d.attachMore(t.Context(), c, attachSpec("k1", 1, "one"))
	if err != nil || same.ID != c.ID || f.asked() != "" {
		t.Errorf("the same once more: %+v, %v", same, err)
	}
	for says, e := range map[string]network.EndpointSpec{
		"interface eth0, not net7":    {Interface: "net7"},
		"not 02:00:00:00:00:07":       {MAC: network.MAC{2, 0, 0, 0, 0, 7}},
		"not 198.51.100.7: detach it": {IPv4: netip.MustParseAddr("198.51.100.7")},
		"not 2001:db8::7: detach it":  {IPv6: netip.MustParseAddr("2001:db8::7")},
	} {
		other := attachSpec("k1", 1, "one")
		e.Key = "k1"
		other.Networks[0].EndpointSpec = e
		if _, err := d.attachMore(t.Context(), c, other); !errors.Is(err, errdefs.ErrConflict) ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("the same key for something else: %v, want %q", err, says)
		}
	}
	equal := attachSpec("k1", 1, "one")
	equal.Networks[0].Interface = "eth0"
	if _, err := d.attachMore(t.Context(), c, equal); err != nil || f.asked() != "" {
		t.Errorf("the same in all words: %v", err)
	}
	if _, err := d.attachMore(t.Context(), c, attachSpec("k3", 1, "three")); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a network that does not exist: %v", err)
	}
	renamed := attachSpec("k3", 1, "")
	renamed.Name, renamed.Ports = "alias", []network.PortBinding{
		{HostIP: netip.MustParseAddr("127.83.1.11"), Port: 80, End: 80, Proto: network.TCP},
	}
	if _, err := d.attachMore(t.Context(), c, renamed); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, d, c.ID); got != "one:k1 two:k2 bridge:k3" {
		t.Errorf("it is on %s", got)
	}
	if list, err := d.Published(c.ID); err != nil || len(list) != 1 {
		t.Errorf("%v is published, %v", list, err)
	}
	if c, _ = d.Container(c.ID); c.Name != "box" {
		t.Errorf("it is called %s", c.Name)
	}
}

// TestAnotherNameIsAnAlias attaches with a second name, which others find on the network that came with it.
func TestAnotherNameIsAnAlias(t *testing.T) {
	d, _ := newFakeDaemon(t)
	c := attachTwice(t, d)
	makeNetworks(t, d, network.NetworkSpec{Name: "three"})
	spec := attachSpec("k3", 1, "three")
	spec.Name = "second"
	spec.Networks[0].Aliases = []string{"first"}
	if _, err := d.attachMore(t.Context(), c, spec); err != nil {
		t.Fatal(err)
	}
	c, _ = d.Container(c.ID)
	if got := c.Endpoints[2].Aliases; !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("aliases: %v", got)
	}
	if len(spec.Networks[0].Aliases) != 1 {
		t.Error("the request has changed")
	}
}

// TestDetachingByKey takes networks away, and the container with the last one, once and again.
func TestDetachingByKey(t *testing.T) {
	d, f := newFakeDaemon(t)
	c := attachTwice(t, d)
	for _, step := range []struct{ key, left, asked string }{
		{"k9", "one:k1 two:k2", ""},
		{"k1", "two:k2", "remove eth0"},
		{"k1", "two:k2", ""},
		{"k2", "gone", "remove eth1"},
		{"k2", "gone", ""},
	} {
		f.asked()
		if err := d.Detach(t.Context(), step.key); err != nil {
			t.Fatal(err)
		}
		asked, _, _ := strings.Cut(f.asked(), ",")
		if got := keys(t, d, c.ID); got != step.left || asked != step.asked {
			t.Errorf("without %s it is on %q, after %q; want %q, %q", step.key, got, asked, step.left, step.asked)
		}
	}
	if len(d.attaching.busy) != 0 {
		t.Errorf("%d namespaces are being attached", len(d.attaching.busy))
	}
}

// TestASandboxThatWasMadeAnew takes the key's networks from the namespace before, and leaves others'.
func TestASandboxThatWasMadeAnew(t *testing.T) {
	d, _ := newFakeDaemon(t)
	c := attachTwice(t, d)
	if err := d.detachOthers(t.Context(), "k1", c.NetNSID); err != nil || keys(t, d, c.ID) != "one:k1 two:k2" {
		t.Errorf("for its own namespace: %s, %v", keys(t, d, c.ID), err)
	}
	another := network.NamespaceID{Dev: 1, Ino: 2}
	if err := d.detachOthers(t.Context(), "k1", another); err != nil || keys(t, d, c.ID) != "two:k2" {
		t.Errorf("for another one: %s, %v", keys(t, d, c.ID), err)
	}
	if err := d.detachOthers(t.Context(), "k2", another); err != nil || keys(t, d, c.ID) != "gone" {
		t.Errorf("with its last key: %s, %v", keys(t, d, c.ID), err)
	}
}

// TestFailedAttachmentLeavesNothing has an attachment fail before and in the namespace.
func TestFailedAttachmentLeavesNothing(t *testing.T) {
	pid, _ := self(t)
	for name, test := range map[string]struct {
		on      string
		started api.Started
		fail    error
		closed  bool
	}{
		"no such network":          {on: "three", started: api.Started{Holder: pid}},
		"the namespace refuses":    {on: "one", started: api.Started{Holder: pid}, fail: errors.New("no")},
		"its holder is gone":       {on: "one", started: api.Started{Holder: 1 << 30}},
		"its process is gone":      {on: "one", started: api.Started{Pid: 1 << 30}},
		"a closed descriptor":      {on: "one", started: api.Started{Holder: pid}, closed: true},
		"its process is no number": {on: "one", started: api.Started{Pid: -1}},
	} {
		d, f := newFakeDaemon(t)
		makeNetworks(t, d, network.NetworkSpec{Name: "one"})
		netns := namespace(t)
		if test.closed {
			_ = netns.Close()
		}
		f.fail = test.fail
		c, err := d.attachFirst(t.Context(), attachSpec("k1", 1, test.on), test.started, netns)
		if err == nil {
			t.Errorf("%s: %+v is attached", name, c)
		}
		if len(d.Containers()) != 0 || len(d.allRuntimes()) != 0 {
			t.Errorf("%s: there are %d containers, and %d with open descriptors", name, len(d.Containers()),
				len(d.allRuntimes()))
		}
		if err := d.RemoveNetwork(t.Context(), "one"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRepair gives a container its network again whose namespace the daemon has lost, at the same address.
func TestRepair(t *testing.T) {
	for name, test := range map[string]struct {
		lost bool
		fail error
		want string // what is asked for, without routes
	}{
		"the descriptor is there":               {want: ""},
		"it is lost":                            {lost: true, want: "add eth0, add eth1"},
		"it is lost, and the namespace refuses": {lost: true, fail: errors.New("no"), want: ""},
	} {
		d, f := newFakeDaemon(t)
		c := attachTwice(t, d)
		s := d.runtime(c.ID)
		if test.lost { // as restore leaves it
			s.mu.Lock()
			d.teardown(s)
			s.mu.Unlock()
			s.dropNamespace()
		}
		f.asked()
		f.fail = test.fail
		if err := d.repair(t.Context(), c, namespace(t)); (err == nil) != (test.fail == nil) {
			t.Errorf("%s: %v", name, err)
		}
		asked, _, _ := strings.Cut(f.asked(), ", route")
		if asked != test.want {
			t.Errorf("%s: %q is asked for, want %q", name, asked, test.want)
		}
		s.mu.Lock()
		attached := len(s.attachments)
		s.mu.Unlock()
		if want := test.fail == nil; (attached == 2) != want || (s.netns.Load() != nil) != want {
			t.Errorf("%s: it has %d interfaces, and its namespace is %v", name, attached, s.netns.Load())
		}
		for _, e := range c.Endpoints {
			if id, _ := d.bridge(e.NetworkID).Owner(e.IPv4.Addr()); (id == c.ID) != (test.fail == nil) {
				t.Errorf("%s: %s is %q's on network %s", name, e.IPv4.Addr(), id, e.Network)
			}
		}
	}
}

// TestDetachingWhatEndsMeanwhile has a record that was found just before the container's own end: the runtime's last
// hook comes as its process ends.
func TestDetachingWhatEndsMeanwhile(t *testing.T) {
	d, f := newFakeDaemon(t)
	c, _ := ran(t, d, f, network.ContainerSpec{Name: "c1"})
	c.Attached, c.Endpoints = true, []*network.Endpoint{{Key: "oci/c1"}}
	if err := d.RemoveContainer(t.Context(), c.ID, true); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"oci/c1", "cni/net1/c1/eth0"} {
		c.Endpoints[0].Key = key
		if err := d.detachKey(t.Context(), c, key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}
