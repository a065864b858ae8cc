package test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// eachDocker runs a test with each docker CLI of this machine.
func eachDocker(t *testing.T, test func(t *testing.T, d *daemon)) {
	t.Parallel()
	for _, client := range dockerClients(t) {
		t.Run(client, func(t *testing.T) {
			d := startDaemon(t)
			d.dockerCLI = client
			test(t, d)
		})
	}
}

// dockerFails runs the docker CLI, which has to fail and to say words on standard error.
func (d *daemon) dockerFails(words string, args ...string) {
	d.t.Helper()
	if r := d.docker(args...); r.code == 0 || !strings.Contains(r.stderr, words) {
		d.t.Errorf("wanted a failure and %q: %v", words, r)
	}
}

// dockerSays runs the docker CLI, which has to succeed and to print exactly text.
func (d *daemon) dockerSays(text string, args ...string) {
	d.t.Helper()
	if out := d.dockerOK(args...); out != text {
		d.t.Errorf("docker %s prints %q, want %q", strings.Join(args, " "), out, text)
	}
}

// knows says whether the client has a flag: Debian's lacks the newest.
func (d *daemon) knows(flag string, command ...string) bool {
	d.t.Helper()
	r := d.docker(append(command, "--help")...)
	return strings.Contains(r.stdout+r.stderr, flag)
}

func TestDockerNetworkCreate(t *testing.T) { eachDocker(t, dockerNetworkCreate) }

func dockerNetworkCreate(t *testing.T, d *daemon) {
	d.dockerOK("network", "create", "-d", "bridge", "--subnet", "10.50.0.0/16", "--gateway", "10.50.255.254",
		"--ip-range", "10.50.7.0/24",
		"--aux-address", "router=10.50.7.0", "--aux-address", "printer=10.50.7.1", "--subnet", "fd50::/64", "--ipv6",
		"--attachable", "--internal",
		"--label", "team=a", "--label", "empty", "-o", "com.docker.network.driver.mtu=1400", "-o",
		"com.docker.network.bridge.enable_icc=false", "full")
	var list []struct {
		Name, ID, Created, Scope, Driver                                  string
		EnableIPv4, EnableIPv6, Internal, Attachable, Ingress, ConfigOnly bool
		IPAM                                                              struct {
			Driver string
			Config []struct {
				Subnet, IPRange, Gateway string
				AuxiliaryAddresses       map[string]string
			}
		}
		ConfigFrom      struct{ Network string }
		Containers      map[string]any
		Options, Labels map[string]string
	}
	if err := json.Unmarshal([]byte(d.dockerOK("network", "inspect", "full")), &list); err != nil {
		t.Fatal(err)
	}
	n := list[0]
	if n.Name != "full" || n.Scope != "local" || n.Driver != "bridge" || !n.EnableIPv6 || !n.Internal ||
		!n.Attachable || n.Ingress || n.ConfigOnly {
		t.Errorf("%+v", n)
	}
	if n.IPAM.Driver != "default" || len(n.IPAM.Config) != 2 || fmt.Sprint(n.Labels) != "map[empty: team:a]" ||
		n.Options["com.docker.network.driver.mtu"] != "1400" || n.Containers == nil {
		t.Errorf("%+v", n)
	}
	for _, c := range n.IPAM.Config {
		if strings.HasPrefix(c.Subnet, "10.") &&
			(c.Subnet != "10.50.0.0/16" || c.IPRange != "10.50.7.0/24" || c.Gateway != "10.50.255.254" ||
				fmt.Sprint(c.AuxiliaryAddresses) != "map[printer:10.50.7.1 router:10.50.7.0]") {
			t.Errorf("%+v", c)
		}
	}
	d.idle("c1", "--network", "full")
	d.says("10.50.7.2/16", "c1", "ip", "addr", "show", "eth0")
	d.says("mtu 1400", "c1", "ip", "addr", "show", "eth0")
	if out := d.exec("c1", "ip", "route").stdout; strings.Contains(out, "default") {
		t.Errorf("an internal network gives a default route: %s", out)
	}

	d.dockerOK("network", "create", "--config-only", "--subnet", "10.51.0.0/24", "-o",
		"com.docker.network.driver.mtu=1300", "conf")
	d.dockerFails("cannot create endpoint on configuration-only network", "network", "connect", "conf", "c1")
	d.dockerOK("network", "create", "--config-from", "conf", "made")
	d.dockerSays("10.51.0.0/24 conf", "network", "inspect", "-f",
		"{{(index .IPAM.Config 0).Subnet}} {{.ConfigFrom.Network}}", "made")
	d.dockerFails("configuration network \"conf\" is in use", "network", "rm", "conf")
	d.dockerFails("user specified configurations are not supported if the network depends on a configuration network",
		"network", "create", "--config-from", "conf", "--subnet", "10.52.0.0/24", "x")
	d.dockerFails("network nothing not found", "network", "create", "--config-from", "nothing", "x")
	d.dockerFails("network bridge is not a config-only network", "network", "create", "--config-from", "bridge", "x")
	d.dockerOK("network", "rm", "made", "conf")

	d.dockerOK("network", "create", "-o", "com.docker.network.container_iface_prefix=lan", "-o",
		"com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "opts")
	port := freePort()
	d.idle("c2", "--network", "opts", "-p", fmt.Sprintf("%d:80", port))
	d.says("lan0", "c2", "ip", "-br", "addr")
	d.dockerSays(fmt.Sprintf("127.0.0.1:%d", port), "port", "c2", "80")
	d.dockerSays(fmt.Sprintf("80/tcp -> 127.0.0.1:%d", port), "port", "c2")
	if r := d.docker("port", "c2", "81/udp"); r.code == 0 || !strings.Contains(r.stderr, "81/udp") {
		t.Errorf("%v", r)
	}

	d.dockerOK("network", "create", "--ipv6", "drawn")
	if out := d.dockerOK("network", "inspect", "-f", "{{.EnableIPv6}} {{(index .IPAM.Config 1).Subnet}}", "drawn"); !regexp.MustCompile(`^true fd[0-9a-f:]+/64$`).MatchString(out) {
		t.Errorf("--ipv6 alone gives %s", out)
	}

	for _, test := range []struct {
		words string
		args  []string
	}{
		{"network with name full already exists", []string{"full"}},
		{"operation is not permitted on predefined bridge network", []string{"bridge"}},
		{"operation is not permitted on predefined host network", []string{"host"}},
		{"operation is not permitted on predefined none network", []string{"none"}},
		{"Pool overlaps with other one on this address space", []string{"--subnet", "10.50.3.0/24", "x"}},
		{"Pool overlaps with other one on this address space", []string{"--ipv6", "--subnet", "fd50::/80", "x"}},
		{"could not find plugin nosuch in v1 plugin registry: plugin not found", []string{"-d", "nosuch", "x"}},
		{"no matching subnet for gateway", []string{"--subnet", "10.55.0.0/24", "--gateway", "10.56.0.1", "x"}},
		{"no matching subnet for range", []string{"--subnet", "10.55.0.0/24", "--ip-range", "10.56.0.0/25", "x"}},
		{"no matching subnet for aux-address",
			[]string{"--subnet", "10.55.0.0/24", "--aux-address", "a=10.56.0.9", "x"}},
		{"invalid MTU", []string{"-o", "com.docker.network.driver.mtu=many", "x"}},
		{"a network with IPv6 needs 1280 at least",
			[]string{"-o", "com.docker.network.driver.mtu=1000", "--ipv6", "x"}},
		{"give an IPv4 address of the host",
			[]string{"-o", "com.docker.network.bridge.host_binding_ipv4=fd00::1", "x"}},
		{"container_iface_prefix", []string{"-o", "com.docker.network.container_iface_prefix=much/too/long/for/this", "x"}},
		{"give true or false", []string{"-o", "com.docker.network.bridge.enable_icc=perhaps", "x"}},
		{"invalid scope", []string{"--scope", "swarm", "x"}},
		{"it has no room for a gateway and a container", []string{"--subnet", "10.55.0.0/32", "x"}},
		{"ingress networks belong to swarms", []string{"--ingress", "x"}},
		{"IPAM driver \"nosuch\" is not there", []string{"--ipam-driver", "nosuch", "x"}},
		{"only one instance of \"host\" network is allowed", []string{"-d", "host", "x"}},
		{"only one instance of \"null\" network is allowed", []string{"-d", "null", "x"}},
	} {
		d.dockerFails(test.words, append([]string{"network", "create"}, test.args...)...)
	}
}

func TestDockerNetworkLists(t *testing.T) { eachDocker(t, dockerNetworkLists) }

func dockerNetworkLists(t *testing.T, d *daemon) {
	one := d.dockerOK("network", "create", "--label", "team=a", "one")
	two := d.dockerOK("network", "create", "--internal", "two")
	d.idle("c1", "--network", "two")

	out := d.dockerOK("network", "ls")
	if !regexp.MustCompile(`^NETWORK ID +NAME +DRIVER +SCOPE\n`).MatchString(out) {
		t.Errorf("network ls prints %s", out)
	}
	if !regexp.MustCompile(`(?m)^` + one[:12] + ` +one +bridge +local$`).MatchString(out) {
		t.Errorf("network ls prints %s", out)
	}
	for _, test := range []struct {
		want string
		args []string
	}{
		{"bridge\nhost\nnone\none\ntwo", nil},
		{"none\none", []string{"-f", "name=one"}},
		{"one", []string{"-f", "name=^one$"}},
		{"bridge\nnone\none", []string{"-f", "name=one", "-f", "name=bri"}},
		{"two", []string{"-f", "id=" + two[:10]}},
		{"one\ntwo", []string{"-f", "type=custom"}},
		{"bridge\nhost\nnone", []string{"-f", "type=builtin"}},
		{"host", []string{"-f", "driver=host"}},
		{"none", []string{"-f", "driver=null"}},
		{"one", []string{"-f", "label=team"}},
		{"one", []string{"-f", "label=team=a"}},
		{"", []string{"-f", "label=team=b"}},
		{"one", []string{"-f", "dangling=true"}},
		{"bridge\nhost\nnone\none\ntwo", []string{"-f", "scope=local"}},
		{"", []string{"-f", "scope=swarm"}},
	} {
		d.dockerSays(test.want, append([]string{"network", "ls", "--format", "{{.Name}}"}, test.args...)...)
		if got := d.ok(append([]string{"network", "ls", "--format", "{{.Name}}"}, test.args...)...); got != test.want {
			t.Errorf("usernet network ls %v prints %q, want %q", test.args, got, test.want)
		}
	}
	d.dockerSays(one, "network", "ls", "-q", "--no-trunc", "-f", "name=^one$")
	d.dockerSays(one[:12], "network", "ls", "-q", "-f", "name=^one$")
	d.dockerSays("two true false", "network", "ls", "-f", "name=two", "--format", "{{.Name}} {{.Internal}} {{.IPv6}}")
	d.dockerFails("invalid filter", "network", "ls", "-f", "colour=red")
	if plain, ours := d.dockerOK("network", "ls"), d.ok("network", "ls"); plain != ours {
		t.Errorf("docker prints\n%s\nusernet prints\n%s", plain, ours)
	}

	d.dockerSays("one\ntwo", "network", "inspect", "-f", "{{.Name}}", "one", "two")
	d.dockerSays("one", "network", "inspect", "--verbose", "-f", "{{.Name}}", one)
	if r := d.docker("network", "inspect", "one", "nothing"); r.code != 1 || !strings.Contains(r.stdout, `"Name": "one"`) || !strings.Contains(r.stderr, "nothing") {
		t.Errorf("%v", r)
	}
	if out := d.dockerOK("network", "prune", "-f", "--filter", "label!=team"); strings.Contains(out, "one") {
		t.Errorf("prune removed what the filter excludes: %s", out)
	}
	d.dockerSays("", "network", "prune", "-f", "--filter", "until=1h")
	d.dockerSays("Deleted Networks:\none\n", "network", "prune", "-f", "--filter", "label=team=a", "--filter",
		"until=0s")
	d.dockerOK("network", "create", "--config-only", "settings")
	d.dockerSays("", "network", "prune", "-f") // it is no network that could be unused
	d.dockerOK("network", "rm", "settings")
	d.dockerFails("has active endpoints", "network", "rm", "two")
	d.ok("rm", "-f", "c1")
	d.dockerSays("two", "network", "rm", "two")
	d.dockerFails("nothing", "network", "rm", "nothing")
	if d.knows("--force", "network", "rm") {
		d.dockerSays("", "network", "rm", "-f", "nothing")
	}
	if r := d.try("network", "rm", "-f", "nothing"); r.code != 0 || r.stdout+r.stderr != "" {
		t.Errorf("%v", r)
	}
	for _, name := range []string{"bridge", "host", "none"} {
		d.dockerFails(name+" is a pre-defined network and cannot be removed", "network", "rm", name)
	}
}

func TestDockerNetworkConnect(t *testing.T) { eachDocker(t, dockerNetworkConnect) }

func dockerNetworkConnect(t *testing.T, d *daemon) {
	d.dockerOK("network", "create", "--subnet", "10.50.0.0/24", "--subnet", "fd50::/64", "--ipv6", "one")
	d.dockerOK("network", "create", "zwei")
	d.idle("c1", "--network", "zwei")
	d.idle("c2", "--network", "one")
	d.idle("c3")
	d.dockerOK("network", "connect", "--ip", "10.50.0.40", "--ip6", "fd50::40", "--alias", "forty", "--alias",
		"vierzig", "--link", "c2:friend",
		"--link-local-ip", "169.254.40.40", "--driver-opt", "usernet.port_guard=true", "one", "c1")
	d.says("10.50.0.40/24", "c1", "ip", "addr", "show", "eth1")
	d.says("fd50::40/64", "c1", "ip", "addr", "show", "eth1")
	d.says("169.254.40.40", "c1", "ip", "addr", "show", "eth1")
	d.says(" 0% packet loss", "c2", "ping", "-c1", "-W5", "vierzig")
	d.says(" 0% packet loss", "c1", "ping", "-c1", "-W5", "friend")
	d.dockerSays("10.50.0.40 24 fd50::40 64 [c2:friend] 10.50.0.40", "inspect", "-f", "{{with .NetworkSettings.Networks.one}}{{.IPAddress}} {{.IPPrefixLen}} "+
		"{{.GlobalIPv6Address}} {{.GlobalIPv6PrefixLen}} {{.Links}} {{.IPAMConfig.IPv4Address}}{{end}}", "c1")
	if out := d.dockerOK("inspect", "-f", "{{json .NetworkSettings.Networks.one.Aliases}}", "c1"); !strings.Contains(
		out, "forty") {
		t.Errorf("aliases are %s", out)
	}
	// By name, one comes before zwei, so it has the default route now.
	d.says("default via 10.50.0.1 dev eth1", "c1", "ip", "route")
	if d.knows("--gw-priority", "network", "connect") {
		d.dockerOK("network", "disconnect", "one", "c1")
		d.says("dev eth0", "c1", "ip", "route", "show", "default")
		d.dockerOK("network", "connect", "--gw-priority", "-1", "one", "c1")
		d.says("dev eth0", "c1", "ip", "route", "show", "default")
		d.dockerSays("-1", "inspect", "-f", "{{.NetworkSettings.Networks.one.GwPriority}}", "c1")
	}
	for _, test := range []struct {
		words string
		args  []string
	}{
		{"endpoint with name c1 already exists in network one", []string{"one", "c1"}},
		{"network nothing not found", []string{"nothing", "c1"}},
		{"No such container: nobody", []string{"one", "nobody"}},
		{"no configured subnet contains IP address 10.99.0.1", []string{"--ip", "10.99.0.1", "one", "c3"}},
		{"user specified IP address is supported only when connecting to networks with user configured subnets", []string{"--ip", "172.18.0.99", "zwei", "c2"}},
		{"user specified IP address is supported on user defined networks only", []string{"--ip", "172.17.0.99", "bridge", "c2"}},
		{"network-scoped aliases are only supported for user-defined networks", []string{"--alias", "x", "bridge", "c2"}},
		{"Address already in use", []string{"--ip", "10.50.0.1", "one", "c3"}},
	} {
		d.dockerFails(test.words, append([]string{"network", "connect"}, test.args...)...)
	}
	d.dockerOK("network", "disconnect", "-f", "one", "c1")
	d.dockerFails("is not connected to", "network", "disconnect", "one", "c1")
	if err := d.lacksInterface("c1", "eth1"); err != nil {
		t.Error(err)
	}
}

func TestDockerSystem(t *testing.T) { eachDocker(t, dockerSystem) }

func dockerSystem(t *testing.T, d *daemon) {
	out := d.dockerOK("version")
	for _, want := range []string{"Client:", "Server: usernet", "API version:", "OS/Arch:", "minimum version 1.24"} {
		if !strings.Contains(out, want) {
			t.Errorf("version lacks %q: %s", want, out)
		}
	}
	d.idle("c1", "--label", "team=a", "--expose", "80")
	c2 := d.idle("c2", "--network", "host")
	d.ok("kill", "c2")
	d.ok("wait", "c2")
	d.dockerSays("2 1 1", "info", "-f", "{{.Containers}} {{.ContainersRunning}} {{.ContainersStopped}}")
	out = d.dockerOK("info")
	for _, want := range []string{"Containers: 2", "Running: 1", "Stopped: 1", "Network: bridge host null",
		"rootless"} {
		if !strings.Contains(out, want) {
			t.Errorf("info lacks %q: %s", want, out)
		}
	}

	out = d.dockerOK("ps", "-a")
	if !regexp.MustCompile(`^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS +PORTS +NAMES\n`).MatchString(out) || !strings.Contains(out, "80/tcp") ||
		!strings.Contains(out, "Exited (137)") {
		t.Errorf("ps -a prints %s", out)
	}
	for _, test := range []struct {
		want string
		args []string
	}{
		{"c1", nil}, {"c2\nc1", []string{"-a"}}, {"c2", []string{"-a", "-n", "1"}}, {"c2", []string{"-l"}},
		{"c2", []string{"-f", "status=exited"}},
		{"c1", []string{"-a", "-f", "label=team=a"}}, {"c1", []string{"-f", "network=bridge"}},
		{"c2", []string{"-a", "-f", "id=" + c2[:12]}},
		{"c1", []string{"-f", "expose=80"}}, {"", []string{"-f", "publish=80"}},
		{"c1", []string{"-a", "-f", "name=^/c1$"}}, {"c1", []string{"-a", "-f", "before=c2"}},
		{"c2", []string{"-a", "-f", "since=c1"}},
		{"", []string{"-a", "-f", "ancestor=busybox"}}, {"c2", []string{"-a", "-f", "exited=137"}},
	} {
		d.dockerSays(test.want, append([]string{"ps", "--format", "{{.Names}}"}, test.args...)...)
	}
	d.dockerSays(d.address("c1"), "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "c1")
	d.dockerSays("/c1 true running bridge", "inspect", "-f", "{{.Name}} {{.State.Running}} {{.State.Status}} {{.HostConfig.NetworkMode}}", "c1")
	d.dockerSays("bridge", "inspect", "-f", "{{.Name}}", "bridge") // docker asks for a container first
	d.dockerSays("bridge", "inspect", "--type", "network", "-f", "{{.Name}}", "bridge")
	d.dockerFails("nothing", "inspect", "nothing")

	d.dockerOK("rename", "c1", "renamed")
	d.dockerFails("is already in use by container", "rename", "renamed", "c2")
	d.dockerFails("container is running", "rm", "renamed")
	d.dockerOK("kill", "-s", "KILL", "renamed")
	d.dockerSays("137", "wait", "renamed")
	d.dockerOK("rm", "renamed", "c2")
	d.dockerFails("No such container: renamed", "rm", "renamed")
	for _, args := range [][]string{{"images"}, {"volume", "ls"}, {"pull", "busybox"}, {"swarm", "init"}} {
		if r := d.docker(args...); r.code == 0 || !strings.Contains(r.stderr, "usernet") {
			t.Errorf("what usernet does not have is not refused by name: %v", r)
		}
	}

	d.dockerOK("network", "create", "mynet")
	id := d.idle("c3", "--network", "mynet")
	d.dockerOK("network", "disconnect", "mynet", "c3")
	d.dockerOK("network", "connect", "mynet", "c3")
	d.ok("rm", "-f", "c3")
	d.dockerOK("network", "rm", "mynet")
	// The client cuts --until to whole seconds, so that only an end in the future includes what was just done.
	d.dockerSays("create\nconnect\ndisconnect\nconnect\ndisconnect\ndestroy",
		"events", "--since", "1h", "--until=-1s", "-f", "type=network", "-f", "network=mynet", "--format",
		"{{.Action}}")
	d.dockerSays("create\nstart\nkill\ndie\ndestroy", "events", "--since", "1h", "--until=-1s", "-f", "type=container",
		"-f", "container="+id[:12], "--format", "{{.Action}}")
	if out := d.dockerOK("events", "--since", "1h", "--until=-1s", "-f", "event=die", "-f", "container="+
		id); !strings.Contains(out, "exitCode=137") ||
		!strings.Contains(out, "name=c3") || !strings.Contains(out, "container die "+id) {
		t.Errorf("events print %s", out)
	}
}
