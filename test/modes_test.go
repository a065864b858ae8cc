package test

import (
	"fmt"
	"strings"
	"testing"
)

func TestContainerModeConflicts(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("owner")
	for _, test := range []struct {
		words string
		flags []string
	}{
		{"conflicting options: port publishing and the container type network mode", []string{"-p", "80:80"}},
		{"conflicting options: port publishing and the container type network mode", []string{"-P"}},
		{"conflicting options: port exposing and the container type network mode", []string{"--expose", "80"}},
		{"conflicting options: hostname and the network mode", []string{"--hostname", "box"}},
		{"conflicting options: container type network can't be used with links. This would result in undefined behavior", []string{"--link", "owner"}},
		{"conflicting options: dns and the network mode", []string{"--dns", "192.0.2.53"}},
		{"conflicting options: custom host-to-IP mapping and the network mode", []string{"--add-host", "a:1.2.3.4"}},
		{"conflicting options: mac-address and the network mode", []string{"--mac-address", "02:00:00:00:00:01"}},
		{"network-scoped aliases are only supported for user-defined networks", []string{"--network-alias", "a"}},
		{"user specified IP address is supported on user defined networks only", []string{"--ip", "172.17.0.9"}},
	} {
		t.Run(strings.Join(test.flags, " "), func(t *testing.T) {
			d := d.in(t)
			d.fails(test.words, append(append([]string{"run", "--rm", "--network", "container:owner"}, test.flags...),
				"--", "true")...)
		})
	}
	d.fails("invalid container format container:<name|id>", "run", "--rm", "--network", "container:", "--", "true")
	d.fails("No such container: nobody", "run", "--rm", "--network", "container:nobody", "--", "true")
	d.ok("stop", "-t0", "owner")
	d.fails("cannot join network of a non running container", "run", "--rm", "--network", "container:owner", "--",
		"true")
}

func TestContainerModeOutlivesItsOwner(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("owner")
	d.idle("guest", "--network", "container:owner")
	d.idle("third", "--network", "container:guest") // a guest's guest is the owner's
	address := d.address("owner")
	for _, name := range []string{"guest", "third"} {
		d.says(address, name, "ip", "addr", "show", "eth0")
		d.says(" 0% packet loss", name, "ping", "-c1", "-W5", peer4)
	}
	d.fails("container sharing network namespace with another container or host cannot be connected to any other network",
		"network", "connect", "none", "guest")
	d.ok("rm", "-f", "owner")
	eventually(t, func() error { return d.lacksInterface("guest", "eth0") })
	d.says("127.0.0.1", "guest", "ip", "addr", "show", "lo")
	d.says(" 0% packet loss", "guest", "ping", "-c1", "-W5", "127.0.0.1")
	d.idle("next")
	if got := d.address("next"); got != address {
		t.Errorf("the owner's address %s did not come back: %s", address, got)
	}
}

func TestModesDoNotMix(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("bridged")
	d.idle("hosted", "--network", "host", "-p", "80:80")
	d.idle("lonely", "--network", "none")
	for _, test := range []struct{ words, network, container string }{
		{"cannot connect container to host network - container must be created in host network mode", "host", "bridged"},
		{"container sharing network namespace with another container or host cannot be connected to any other network", "mynet", "hosted"},
		{"container cannot be connected to multiple networks with one of the networks in private (none) mode", "none", "bridged"},
		{"container cannot be connected to multiple networks with one of the networks in private (none) mode", "mynet", "lonely"},
		{"endpoint with name bridged already exists in network bridge", "bridge", "bridged"},
	} {
		d.fails(test.words, "network", "connect", test.network, test.container)
	}
	d.fails("cannot disconnect container from host network - container was created in host network mode", "network", "disconnect", "host", "hosted")
	d.fails("is not connected to network mynet", "network", "disconnect", "mynet", "bridged")
	for _, mode := range []string{"host", "container:bridged"} {
		d.fails("is not for what is attached", "attach", "--pid", fmt.Sprint(d.pid("bridged")), "--name", "box",
			"--network", mode)
	}
	if out := d.ok("port", "hosted"); out != "" {
		t.Errorf("a container on the host's network publishes %q", out)
	}
	d.says(host4, "hosted", "ip", "-br", "addr")
	if r := d.try("run", "--rm", "--network", "container:hosted", "--", "ip", "-br", "addr"); !strings.Contains(
		r.stdout, host4) {
		t.Errorf("who shares the network of a container on the host's network lacks it: %v", r)
	}

	d.ok("network", "disconnect", "none", "lonely") // and then it may have another
	d.ok("network", "connect", "mynet", "lonely")
	d.says("172.18.0.", "lonely", "ip", "addr", "show", "eth0")
	d.ok("network", "disconnect", "mynet", "lonely")
	if err := d.lacksInterface("lonely", "eth0"); err != nil {
		t.Error(err)
	}
}

// lacksInterface is for eventually.
func (d *daemon) lacksInterface(name, link string) error {
	r := d.exec(name, "ip", "-br", "link")
	if r.code != 0 || strings.Contains(r.stdout, link) {
		return &stillThere{r}
	}
	return nil
}

// stillThere says that something should have gone.
type stillThere struct{ result }

func (s *stillThere) Error() string { return "still there: " + s.String() }
