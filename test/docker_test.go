package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// dockerClients are the docker CLIs of this machine: Debian's, and a newer one that stands before it in
// PATH.
func dockerClients(t *testing.T) []string {
	t.Helper()
	first, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal(err)
	}
	clients := []string{first}
	if _, err := os.Stat(debianDocker); err == nil && first != debianDocker {
		clients = append(clients, debianDocker)
	}
	return clients
}

const debianDocker = "/usr/bin/docker"

// docker runs the docker CLI of the test against the daemon.
func (d *daemon) docker(args ...string) result {
	d.t.Helper()
	return d.command(d.dockerCLI, args...)
}

// dockerOK runs it, which has to succeed, and returns its output without the final newline.
func (d *daemon) dockerOK(args ...string) string {
	d.t.Helper()
	r := d.docker(args...)
	if r.code != 0 {
		d.t.Fatalf("failed: %v", r)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

func TestDockerCLI(t *testing.T) {
	t.Parallel()
	for _, client := range dockerClients(t) {
		t.Run(client, func(t *testing.T) {
			d := startDaemon(t)
			d.dockerCLI = client
			driveWithDocker(t, d)
		})
	}
}

func driveWithDocker(t *testing.T, d *daemon) {
	for _, args := range [][]string{{"version"}, {"info"}} {
		if r := d.docker(args...); r.code != 0 {
			t.Errorf("%v", r)
		}
	}
	out := d.dockerOK("network", "ls")
	for _, want := range []string{"NETWORK ID", "NAME", "DRIVER", "SCOPE", "bridge", "host", "none", "null", "local"} {
		if !strings.Contains(out, want) {
			t.Errorf("network ls lacks %s: %s", want, out)
		}
	}
	id := d.dockerOK("network", "create", "--subnet", "10.50.0.0/16", "--gateway", "10.50.0.1", "--label", "a=b",
		"mynet")
	if len(id) != 64 {
		t.Errorf("network create prints %q", id)
	}
	var networks []struct {
		Name, Driver, Scope string
		IPAM                struct {
			Config []struct{ Subnet, Gateway string }
		}
		Labels map[string]string
	}
	if err := json.Unmarshal([]byte(d.dockerOK("network", "inspect", id[:6])), &networks); err != nil {
		t.Fatal(err)
	}
	n := networks[0]
	if n.Name != "mynet" || n.Driver != "bridge" || n.Scope != "local" || n.IPAM.Config[0].Subnet != "10.50.0.0/16" ||
		n.Labels["a"] != "b" {
		t.Errorf("network inspect gives %+v", n)
	}
	port := freePort()
	d.idle("web", "--network", "mynet", "-p", fmt.Sprintf("127.0.0.1:%d:80", port))
	out = d.dockerOK("ps")
	for _, want := range []string{"web", "Up", fmt.Sprintf("127.0.0.1:%d->80/tcp", port)} {
		if !strings.Contains(out, want) {
			t.Errorf("ps lacks %s: %s", want, out)
		}
	}
	if out := d.dockerOK("port", "web"); out != fmt.Sprintf("80/tcp -> 127.0.0.1:%d", port) {
		t.Errorf("port prints %s", out)
	}
	if out := d.dockerOK("inspect", "-f", "{{.NetworkSettings.Networks.mynet.IPAddress}}", "web"); out != "10.50.0.2" {
		t.Errorf("inspect prints %s", out)
	}
	if r := d.docker("network", "rm", "mynet"); r.code == 0 || !strings.Contains(r.stderr, "has active endpoints") {
		t.Errorf("a network in use was removed: %v", r)
	}
	if r := d.docker("network", "rm", "bridge"); r.code == 0 || !strings.Contains(r.stderr,
		"bridge is a pre-defined network and cannot be removed") {
		t.Errorf("%v", r)
	}
	if r := d.docker("network", "create", "mynet"); r.code == 0 || !strings.Contains(r.stderr,
		"network with name mynet already exists") {
		t.Errorf("%v", r)
	}
	// clients word it differently
	if r := d.docker("network", "inspect", "nothing"); r.code == 0 || !strings.Contains(strings.ToLower(r.stderr),
		"network") || !strings.Contains(r.stderr, "nothing") {
		t.Errorf("%v", r)
	}
	d.dockerOK("stop", "web")
	d.dockerOK("rm", "web")
	d.dockerOK("network", "rm", "mynet")
}

// TestUserDefinedNetworkWithDocker is the second transcript, with the stock client.
func TestUserDefinedNetworkWithDocker(t *testing.T) {
	t.Parallel()
	for _, client := range dockerClients(t) {
		t.Run(client, func(t *testing.T) {
			d := startDaemon(t)
			d.dockerCLI = client
			userDefinedNetwork(t, d)
		})
	}
}

func userDefinedNetwork(t *testing.T, d *daemon) {
	d.idle("tomcat81")
	d.idle("tomcat82")
	d.dockerOK("network", "create", "mynet")
	d.idle("tomcat83", "--network", "mynet")
	d.idle("tomcat84", "--network", "mynet")
	d.says(" 0% packet loss", "tomcat83", "ping", "-c1", "-W5", "tomcat84")
	d.says("tomcat83.mynet.", "tomcat84", "dig", "+short", "-x", d.address("tomcat83"))

	d.dockerOK("network", "connect", "mynet", "tomcat81")
	d.says("eth1", "tomcat81", "ip", "-br", "addr")
	d.says(" 0% packet loss", "tomcat81", "ping", "-c1", "-W5", "tomcat83")
	d.says(" 0% packet loss", "tomcat84", "ping", "-c1", "-W5", "tomcat81")
	for _, name := range []string{"tomcat83", d.address("tomcat83")} {
		if r := d.exec("tomcat82", "ping", "-c1", "-W2", name); r.code == 0 {
			t.Errorf("tomcat82 reaches %s without being connected: %v", name, r)
		}
	}
	var networks []struct {
		Containers map[string]struct{ Name, IPv4Address string }
	}
	if err := json.Unmarshal([]byte(d.dockerOK("network", "inspect", "mynet")), &networks); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range networks[0].Containers {
		got[c.Name] = c.IPv4Address
	}
	want := map[string]string{"tomcat83": "172.18.0.2/16", "tomcat84": "172.18.0.3/16", "tomcat81": "172.18.0.4/16"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("network inspect lists %v, want %v", got, want)
	}

	d.dockerOK("network", "disconnect", "mynet", "tomcat81")
	if r := d.exec("tomcat81", "ping", "-c1", "-W2", "tomcat83"); r.code == 0 {
		t.Errorf("disconnected, tomcat81 still reaches tomcat83: %v", r)
	}
	d.ok("rm", "-f", "tomcat83", "tomcat84")
	if out := d.dockerOK("network", "prune", "-f"); !strings.Contains(out, "mynet") {
		t.Errorf("prune prints %s", out)
	}
	if out := d.dockerOK("network", "ls", "--format", "{{.Name}}"); out != "bridge\nhost\nnone" {
		t.Errorf("networks after prune: %s", out)
	}
}
