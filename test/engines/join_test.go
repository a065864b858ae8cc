package engines

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// serve starts usernet's daemon for the user, and returns what ends it with a signal.
func (u *user) serve() (end func(syscall.Signal)) {
	u.t.Helper()
	_, end = u.startEnding(usernet, "serve")
	eventually(u.t, func() error {
		if r := u.try(usernet, "network", "ls"); r.code != 0 {
			return fmt.Errorf("the daemon does not answer: %v", r)
		}
		return nil
	})
	return end
}

// TestPodmanJoinsNetworks has Podman's containers on a network of usernet's daemon, with its own ways of publishing
// ports.
func TestPodmanJoinsNetworks(t *testing.T) {
	p := newPodman(t, "crun")
	end := p.serve()
	p.ok(usernet, "network", "create", "mynet")
	p.ok(usernet, "run", "-d", "--name", "web", "--network", "mynet", "--", "busybox", "httpd", "-f", "-p", "80", "-h",
		"/etc/default")
	p.environ = append(p.environ, "USERNET_NETWORK=mynet")
	names := 0
	run := func(args ...string) {
		t.Helper()
		names++
		v := *p.user
		v.environ = append(v.environ, fmt.Sprint("USERNET_NAME=app", names))
		v.ok("podman", append([]string{"run", "-d", "--name", fmt.Sprint("app", names)}, args...)...)
	}
	run("-p", "18501:80", "bb:1", "httpd", "-f", "-p", "80", "-h", "/var/www") // by rootlessport
	run("-p", "18502:80", "--network", "slirp4netns:port_handler=slirp4netns", "bb:1", "httpd", "-f", "-v", "-p", "80",
		"-h", "/var/www")
	run("--userns=keep-id", "--network", "slirp4netns", "bb:1", "sleep", "600")
	check := func(when string) {
		t.Helper()
		for _, port := range []string{"18501", "18502"} {
			eventually(t, func() error { return says("http://127.0.0.1:"+port+"/", "container\n") })
			fetchFromOutside(t, "http://192.0.2.2:"+port+"/")
		}
		for _, name := range []string{"app1", "app3"} {
			for _, neighbour := range []string{"web", "app2"} {
				if out := p.ok("podman", "exec", name, "nslookup", neighbour); !strings.Contains(out, "172.18.0.") {
					t.Errorf("%s, %s asks for %s: %s", when, name, neighbour, out)
				}
			}
			if out := p.ok("podman", "exec", name, "wget", "-qO-", "http://app2/"); out != "container" {
				t.Errorf("%s, %s fetches from its neighbour: %s", when, name, out)
			}
			if out := p.ok("podman", "exec", name, "wget", "-qO-", "http://outside.example:8000/"); out != "outside" {
				t.Errorf("%s, %s fetches from outside: %s", when, name, out)
			}
		}
		if out := p.ok(usernet, "port", "app2"); !strings.Contains(out, "18502") {
			t.Errorf("%s, the daemon does not publish the port: %s", when, out)
		}
	}
	check("at first")
	if r := p.try("podman", "logs", "app2"); !strings.Contains(r.stdout+r.stderr, "192.0.2.1]:") {
		t.Errorf("the client's address is not seen: %v", r)
	}
	end(syscall.SIGKILL)
	p.serve()
	eventually(t, func() error {
		if r := p.try("podman", "exec", "app3", "nslookup", "web"); r.code != 0 {
			return fmt.Errorf("after a crash of the daemon: %v", r)
		}
		return nil
	})
	check("after a crash of the daemon")
	p.ok("podman", "rm", "--all", "--force", "--time", "0")
	eventually(t, func() error {
		if out := p.ok(usernet, "ps", "-a", "--filter", "name=app", "-q"); out != "" {
			return fmt.Errorf("containers are left: %s", out)
		}
		return nil
	})
	p.ok(usernet, "rm", "-f", "web")
}

// TestPodmanSaysWhyItCannotJoin: no daemon runs, or there is no such network.
func TestPodmanSaysWhyItCannotJoin(t *testing.T) {
	p := newPodman(t, "crun")
	for _, c := range []struct{ network, words string }{
		{"mynet", "no usernet daemon answers at " + filepath.Join(p.dir, "run")},
		{"nosuch", "network nosuch not found"},
	} {
		if c.network == "nosuch" {
			p.serve()
		}
		v := *p.user
		v.environ = append(v.environ, "USERNET_NETWORK="+c.network)
		if r := v.try("podman", "run", "--rm", "--network", "slirp4netns", "bb:1", "true"); r.code == 0 ||
			!strings.Contains(r.stderr, c.words) {
			t.Errorf("want an error with %q: %v", c.words, r)
		}
	}
}
