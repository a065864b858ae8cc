package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/names"
	"github.com/usernet/usernet/network"
)

// sees says which of names a container finds, and at whose address.
func sees(d *Daemon, from *network.Container, all map[string]*network.Container, asked ...string) string {
	var list []string
	for _, name := range asked {
		addrs, _, found := d.names.LookupName(from.ID, name)
		if !found {
			list = append(list, name+"=")
			continue
		}
		for who, c := range all {
			for _, e := range c.Endpoints {
				if slices.Contains(addrs, e.IPv4.Addr()) {
					list = append(list, name+"="+who)
				}
			}
		}
	}
	return strings.Join(list, " ")
}

// TestNamesFollowChanges renames, connects, disconnects and ends containers: others find them by the names that they
// have then, on the networks that both are on.
func TestNamesFollowChanges(t *testing.T) {
	d, _ := newFakeDaemon(t)
	makeNetworks(t, d, network.NetworkSpec{Name: "one"}, network.NetworkSpec{Name: "two"})
	all := map[string]*network.Container{}
	for name, on := range map[string]string{"web": "one", "db": "one", "far": "two"} {
		all[name] = started(t, d, network.ContainerSpec{
			Name: name,
			Networks: []network.NamedEndpointSpec{
				{Network: on, EndpointSpec: network.EndpointSpec{Aliases: []string{"a-" + name}}},
			},
		})
	}
	check := func(when, want string) {
		t.Helper()
		for name := range all {
			if c, err := d.Container(all[name].ID); err == nil {
				all[name] = c
			}
		}
		if got := sees(d, all["web"], all, "db", "a-db", "store", "far", "far.two"); got != want {
			t.Errorf("%s: %s\nwant %s", when, got, want)
		}
	}
	check("at first", "db=db a-db=db store= far= far.two=")
	if err := d.RenameContainer(t.Context(), "db", "store"); err != nil {
		t.Fatal(err)
	}
	check("with another name", "db= a-db=db store=db far= far.two=")
	if err := d.RenameContainer(t.Context(), "store", "web"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := d.RenameContainer(t.Context(), "store", "-"); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a name that is none: %v", err)
	}
	check("after refusals", "db= a-db=db store=db far= far.two=")
	if err := d.Connect(t.Context(), "two", "web", network.EndpointSpec{}); err != nil {
		t.Fatal(err)
	}
	check("on the other network too", "db= a-db=db store=db far=far far.two=far")
	if err := d.Disconnect(t.Context(), "one", "web", false); err != nil {
		t.Fatal(err)
	}
	check("on the other network only", "db= a-db= store= far=far far.two=far")
	if err := d.ContainerExited(t.Context(), all["far"].ID, 0); err != nil {
		t.Fatal(err)
	}
	check("alone", "db= a-db= store= far= far.two=")
	renames := 0
	for _, action := range actions(t, d) {
		if action == "container rename" {
			renames++
		}
	}
	if renames != 1 {
		t.Errorf("%d renames are told of", renames)
	}
}

// TestLinksOnANetworkOfTheirOwn has an alias that only the linking container finds, whatever its target is called then.
func TestLinksOnANetworkOfTheirOwn(t *testing.T) {
	d, _ := newFakeDaemon(t)
	makeNetworks(t, d, network.NetworkSpec{
		Name:    "one",
		Options: map[string]string{"com.docker.network.bridge.enable_icc": "false"},
	})
	all := map[string]*network.Container{"db": started(t, d, network.ContainerSpec{Name: "db", NetworkMode: "one"})}
	all["web"] = started(t, d, network.ContainerSpec{Name: "web", Networks: []network.NamedEndpointSpec{{
		Network:      "one",
		EndpointSpec: network.EndpointSpec{Links: []string{"db:store"}},
	}}})
	all["other"] = started(t, d, network.ContainerSpec{Name: "other", NetworkMode: "one"})
	on := all["db"].Endpoints[0].NetworkID
	want := []names.Pair{{From: all["web"].ID, To: all["db"].ID}}
	if got := d.names.Links(on); !slices.Equal(got, want) {
		t.Errorf("links: %v, want %v", got, want)
	}
	if got := sees(d, all["web"], all, "store", "db"); got != "store=db db=db" {
		t.Errorf("the linking one sees %s", got)
	}
	if got := sees(d, all["other"], all, "store"); got != "store=" {
		t.Errorf("another one sees %s", got)
	}
	if err := d.ContainerExited(t.Context(), "db", 0); err != nil {
		t.Fatal(err)
	}
	if got := d.names.Links(on); len(got) != 0 {
		t.Errorf("links to what has ended: %v", got)
	}
	all["db"] = started(t, d, network.ContainerSpec{Name: "db", NetworkMode: "one"}) // it has the name now
	if got := sees(d, all["web"], all, "store"); got != "store=db" {
		t.Errorf("the linking one sees %s", got)
	}
}

// TestLinksOnTheDefaultBridge are in hosts files instead of the resolver, and follow their target.
func TestLinksOnTheDefaultBridge(t *testing.T) {
	d, _ := newFakeDaemon(t)
	db := started(t, d, network.ContainerSpec{Name: "db", Hostname: "host-db"})
	web := started(t, d, network.ContainerSpec{Name: "web", Links: []string{"db:store"}})
	at := db.Endpoints[0].IPv4.Addr()
	hosts := func() string {
		t.Helper()
		reply, err := d.ContainerFiles("web")
		if err != nil {
			t.Fatal(err)
		}
		return reply.Hosts
	}
	if want := fmt.Sprintf("%s\tstore host-db db\n", at); !strings.Contains(hosts(), want) {
		t.Errorf("%s\nlacks %q", hosts(), want)
	}
	if got := d.hostsLinks(db.Endpoints[0].NetworkID); !slices.Equal(got, []names.Pair{{From: web.ID, To: db.ID}}) {
		t.Errorf("links: %v", got)
	}
	if got := d.names.Linkers("db", "nobody"); !slices.Equal(got, []string{web.ID}) {
		t.Errorf("%v link to db", got)
	}
	if err := d.ContainerExited(t.Context(), "db", 0); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(hosts(), "store") || len(d.hostsLinks(db.Endpoints[0].NetworkID)) != 0 {
		t.Errorf("what has ended is in %s", hosts())
	}
}

// TestNamesOfNetworks has containers of the default bridge find none by name, and the table forget removed networks.
func TestNamesOfNetworks(t *testing.T) {
	d, _ := newFakeDaemon(t)
	web := started(t, d, network.ContainerSpec{Name: "web"})
	db := started(t, d, network.ContainerSpec{Name: "db"})
	all := map[string]*network.Container{"web": web, "db": db}
	if got := sees(d, web, all, "db"); got != "db=" {
		t.Errorf("on the default bridge: %s", got)
	}
	makeNetworks(t, d, network.NetworkSpec{Name: "one"})
	for name := range all {
		if err := d.Connect(t.Context(), "one", name, network.EndpointSpec{}); err != nil {
			t.Fatal(err)
		}
		all[name], _ = d.Container(name)
	}
	if got := sees(d, web, all, "db"); got != "db=db" {
		t.Errorf("on a network of their own: %s", got)
	}
	d.updateAllNames() // as after a restart: nothing changes
	if got := sees(d, web, all, "db"); got != "db=db" {
		t.Errorf("read again: %s", got)
	}
	name, ours := d.names.LookupAddr(web.ID, all["db"].Endpoints[1].IPv4.Addr())
	if name != "db.one" || !ours {
		t.Errorf("the name of db's address is %q", name)
	}
	if _, ours := d.names.LookupAddr(web.ID, netip.MustParseAddr("192.0.2.1")); ours {
		t.Error("an address outside is a container's")
	}
}
