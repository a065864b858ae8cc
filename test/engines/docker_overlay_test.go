package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// clusterStore is the store of the cluster that the tests' hosts are in: those are daemons beside each other here.
const clusterStore = "127.0.0.1:23790"

// clusterOf starts the store, and returns the options of a daemon that is a host of the cluster at a port.
func (u *user) clusterOf(port int) (serve []string) {
	u.t.Helper()
	client, peer := "http://"+clusterStore, "http://127.0.0.1:23791"
	u.start("etcd", "--name", "s1", "--data-dir", filepath.Join(u.dir, "etcd"), "--listen-client-urls", client,
		"--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "s1="+peer)
	u.answers(`"true"`, "curl", "-sS", client+"/health")
	return clusterHost(port)
}

func clusterHost(port int) []string {
	return []string{"--cluster-store", "etcd://" + clusterStore, "--cluster-advertise",
		fmt.Sprintf("192.0.2.2:%d", port)}
}

// spansHosts has containers of Docker on networks of a cluster, with neighbours on another host.
func (u *pluggedDocker) spansHosts(t *testing.T) {
	far := newUser(t)
	www := filepath.Join(far.dir, "www")
	if err := os.Mkdir(www, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(www, "index.html"), []byte("far\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	far.daemonEnding(clusterHost(4790)...)

	u.ok(docker, "network", "create", "-d", "usernet-overlay", "--ipam-driver", "usernet-overlay", "--ipam-opt",
		"network=span", "span")
	far.answers("span", usernet, "network", "ls", "--filter", "driver=overlay")
	far.ok(usernet, "run", "-d", "--name", "far", "--network", "span", "--", "busybox", "httpd", "-f", "-p", "80",
		"-h", www)
	u.ok(docker, "run", "-d", "--name", "near", "--network", "span", "--network-alias", "shop", "-p", "18761:80",
		"bb:1", "httpd", "-f", "-v", "-p", "80", "-h", "/var/www")
	there := func(when string) {
		t.Helper()
		u.answers("far", docker, "exec", "near", "wget", "-qO-", "http://far/")
		for _, name := range []string{"near", "shop"} {
			far.answers("container", usernet, "run", "--rm", "--network", "span", "--", "busybox", "wget", "-qO-",
				"http://"+name+"/")
		}
		eventually(t, func() error {
			if err := says("http://127.0.0.1:18761/", "container\n"); err != nil {
				return fmt.Errorf("%s: %w", when, err)
			}
			return nil
		})
	}
	there("at the beginning")
	far.answers("near", usernet, "network", "inspect", "span")
	u.daemon(syscall.SIGKILL)
	u.daemon = u.daemonEnding(u.serve...)
	there("after the daemon was killed")

	// A network of Docker's own is there on the other host as well, for as long as Docker has it.
	id := u.ok(docker, "network", "create", "-d", "usernet-overlay", "--ipam-driver", "usernet-overlay", "own")
	own := "docker-" + id[:12]
	far.answers(own, usernet, "network", "ls")
	u.ok(docker, "network", "rm", "own")
	eventually(t, func() error {
		if out := far.ok(usernet, "network", "ls"); strings.Contains(out, own) {
			return fmt.Errorf("after docker network rm the other host has %q", out)
		}
		return nil
	})

	far.ok(usernet, "rm", "-f", "far")
	u.ok(docker, "rm", "-f", "near")
	u.ok(docker, "network", "rm", "span")
	u.ok(usernet, "network", "rm", "span")
}

// wideCompose is a file for clients of two hosts, of which each starts one of the services.
const wideCompose = `version: "2.4"
services:
  back: {image: "bb:1", command: [httpd, -f, -p, "80", -h, /var/www], networks: [wide]}
  front:
    image: bb:1
    command:
      - sh
      - -c
      - mkdir -p /www; until wget -qO /www/index.html http://back/; do sleep 1; done; exec httpd -f -p 80 -h /www
    networks: [wide]
    ports: ["18771:80"]
networks:
  wide:
    driver: usernet-overlay
    ipam: {driver: usernet-overlay, options: {network: wide}}
`

// TestComposeOnTwoHosts has the services of one file on the daemons of two hosts, with docker-compose pointed at each.
func TestComposeOnTwoHosts(t *testing.T) {
	first := newUser(t)
	one := newPluggedDocker(t, first, first.clusterOf(4789)...)
	two := newPluggedDocker(t, newUser(t), clusterHost(4790)...)
	up := func(d *pluggedDocker, service string) (down func()) {
		t.Helper()
		dir := filepath.Join(d.dir, "pair")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "docker-compose.yml")
		if err := os.WriteFile(file, []byte(wideCompose), 0o644); err != nil {
			t.Fatal(err)
		}
		d.ok("docker-compose", "-f", file, "up", "-d", service)
		return func() { d.ok("docker-compose", "-f", file, "down", "-t", "0") }
	}
	endBack := up(one, "back")
	endFront := up(two, "front")
	eventually(t, func() error { return says("http://192.0.2.2:18771/", "container\n") })
	back := one.ok(docker, "ps", "--format", "{{.Names}}")
	eventually(t, func() error { // a name is known on other hosts within a second
		r := one.try(docker, "exec", back, "wget", "-qO-", "http://front/")
		if strings.TrimSpace(r.stdout) != "container" {
			return fmt.Errorf("the other way: %v", r)
		}
		return nil
	})
	endFront()
	endBack()
	for _, d := range []*pluggedDocker{one, two} {
		out := d.ok(usernet, "ps", "-a", "--format", "{{.Names}}")
		if strings.Contains(out, "back") || strings.Contains(out, "front") {
			t.Errorf("after docker-compose down there are %q", out)
		}
	}
}
