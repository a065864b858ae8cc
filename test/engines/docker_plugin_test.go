package engines

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// pluggedDocker is rootless Docker with usernet's daemon and Docker plugin, each with what ends it with a signal and
// waits for its end.
type pluggedDocker struct {
	*user
	serve                   []string // options of the daemon's
	dockerd, daemon, plugin func(syscall.Signal)
}

// newPluggedDocker starts them. Docker 20.10, which looks for plugins nowhere that a user may write, has usernet in
// dockerd's place before others in PATH. Serve are options of the daemon's.
func newPluggedDocker(t *testing.T, u *user, serve ...string) *pluggedDocker {
	t.Helper()
	d := &pluggedDocker{user: u, serve: serve, daemon: u.daemonEnding(serve...), plugin: u.startPlugin()}
	if strings.Contains(u.ok(docker, "--version"), "version 20.") {
		places := filepath.Join(u.dir, "places")
		if err := os.Mkdir(places, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(usernet, filepath.Join(places, "dockerd")); err != nil {
			t.Fatal(err)
		}
		u.path(places)
	} else {
		u.ok(usernet, "integrate", "docker", "--write")
	}
	d.dockerd = u.startFirstDockerd()
	return d
}

// startPlugin starts usernet's Docker plugin, and returns what ends it.
func (u *user) startPlugin() (end func(syscall.Signal)) {
	u.t.Helper()
	_, end = u.startEnding(usernet, "docker-plugin", "--log-level", "debug")
	eventually(u.t, func() error {
		c, err := net.Dial("unix", filepath.Join(u.dir, "run/usernet/docker/usernet-overlay.sock"))
		if err == nil {
			err = c.Close()
		}
		return err
	})
	return end
}

// daemonEnding starts usernet's daemon and returns what ends it.
func (u *user) daemonEnding(options ...string) (end func(syscall.Signal)) {
	u.t.Helper()
	_, end = u.startEnding(usernet, append([]string{"serve"}, options...)...)
	eventually(u.t, func() error {
		if r := u.try(usernet, "network", "ls"); r.code != 0 || !strings.Contains(r.stdout, "bridge") {
			return fmt.Errorf("no daemon yet: %v", r)
		}
		return nil
	})
	return end
}

// moves counts how often usernet's daemons have noted that Docker has moved an interface into a container and named it.
func (u *user) moves() (n int) {
	u.t.Helper()
	logs, err := filepath.Glob(filepath.Join(u.dir, "log-*"))
	if err != nil {
		u.t.Fatal(err)
	}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			u.t.Fatal(err)
		}
		n += strings.Count(string(text), " interface=eth")
	}
	return n
}

// answers waits until a command succeeds and prints what is wanted.
func (u *user) answers(want, name string, args ...string) {
	u.t.Helper()
	eventually(u.t, func() error {
		if r := u.try(name, args...); r.code != 0 || !strings.Contains(r.stdout, want) {
			return fmt.Errorf("want %q: %v", want, r)
		}
		return nil
	})
}

// TestDockerPlugin has it with Docker 20.10, of Debian 12.
func TestDockerPlugin(t *testing.T) {
	u := newUser(t)
	d := newPluggedDocker(t, u, u.clusterOf(4789)...)
	d.networks(t)
	d.spansHosts(t)
	d.survives(t)
}

// TestDebian13DockerPlugin has it with Docker 26, which finds the plugin by its specification, and whose network
// namespace RootlessKit 2 has detached.
func TestDebian13DockerPlugin(t *testing.T) {
	d := newPluggedDocker(t, newUser(t))
	if v := d.ok(docker, "--version"); !strings.Contains(v, "version 26.") {
		t.Fatalf("this test needs Docker 26, as in Debian 13: %s", v)
	}
	d.networks(t)
	d.survives(t)
}

// networks has containers of Docker on networks of usernet's daemon: its own and one that is there already.
func (u *pluggedDocker) networks(t *testing.T) {
	httpd := []string{"bb:1", "httpd", "-f", "-v", "-p", "80", "-h", "/var/www"}

	u.ok(docker, "network", "create", "-d", "usernet", "--ipam-driver", "usernet", "lan")
	u.ok(docker, append([]string{"run", "-d", "--name", "web", "--network", "lan", "-p", "18741:80"}, httpd...)...)
	for name, c := range map[string]struct{ command, want string }{
		"by name":          {"wget -qO- http://web/", "container"},
		"out by address":   {"wget -qO- http://192.0.2.1:8000/", "outside"},
		"out by name":      {"wget -qO- http://outside.example:8000/", "outside"},
		"seen outside as":  {"sleep 1 | nc 192.0.2.1 7000", "192.0.2.2"},
		"at the beginning": {"ip -o -4 addr show eth0 | grep -c inet", "1"},
	} {
		if out := u.ok(docker, "run", "--rm", "--network", "lan", "bb:1", "sh", "-c", c.command); out != c.want {
			t.Errorf("%s: %q, want %q", name, out, c.want)
		}
	}
	for _, url := range []string{"http://127.0.0.1:18741/", "http://192.0.2.2:18741/"} {
		eventually(t, func() error { return says(url, "container\n") })
	}
	u.seesClient("web", "192.0.2.2:18741")

	// A network that others are on as well: names both ways, by each one's own name server.
	u.ok(usernet, "network", "create", "--subnet", "10.77.0.0/24", "mynet")
	u.ok(usernet, "run", "-d", "--name", "neighbour", "--network", "mynet", "--", "busybox", "httpd", "-f", "-p", "80",
		"-h", "/etc/default")
	u.ok(docker, "network", "create", "-d", "usernet", "--ipam-driver", "usernet", "--ipam-opt", "network=mynet",
		"--subnet", "10.77.0.0/24", "shared")
	u.ok(docker, append([]string{"run", "-d", "--name", "app", "--network", "shared", "--network-alias", "shop", "--ip",
		"10.77.0.200"}, httpd...)...)
	if out := u.ok(docker, "exec", "app", "nslookup", "neighbour"); !strings.Contains(out, "10.77.0.2") {
		t.Errorf("Docker's container asks for its neighbour: %s", out)
	}
	for _, name := range []string{"app", "shop"} {
		u.answers("container", usernet, "run", "--rm", "--network", "mynet", "--", "busybox", "wget", "-qO-",
			"http://"+name+"/")
	}
	if out := u.ok(usernet, "ps", "--format", "{{.Names}}"); !strings.Contains(out, "app") || !strings.Contains(out,
		"web") {
		t.Errorf("usernet sees %q", out)
	}

	t.Run("connect", func(t *testing.T) {
		u.ok(docker, "network", "connect", "shared", "web")
		if out := u.ok(docker, "exec", "web", "wget", "-qO-", "http://10.77.0.200/"); out != "container" {
			t.Errorf("over the second network: %q", out)
		}
		u.ok(docker, "network", "disconnect", "shared", "web")
		if out := u.ok(docker, "exec", "web", "ip", "-o", "link"); strings.Contains(out, "eth1") {
			t.Errorf("after disconnect:\n%s", out)
		}
		u.answers("outside", docker, "exec", "web", "wget", "-qO-", "http://192.0.2.1:8000/")
	})

	t.Run("the daemon is killed", func(t *testing.T) {
		before := u.moves()
		u.ok(docker, "network", "connect", "shared", "web") // two networks in one namespace
		eventually(t, func() error {
			if u.moves() == before {
				return errors.New("the daemon has not seen that Docker has moved the interface")
			}
			return nil
		})
		u.daemon(syscall.SIGKILL)
		u.daemon = u.daemonEnding(u.serve...)
		u.answers("container", docker, "exec", "web", "wget", "-qO-", "http://10.77.0.200/")
		u.answers("container", docker, "run", "--rm", "--network", "shared", "bb:1", "wget", "-qO-",
			"http://10.77.0.200/")
		u.answers("outside", docker, "exec", "web", "wget", "-qO-", "http://192.0.2.1:8000/")
		eventually(t, func() error { return says("http://127.0.0.1:18741/", "container\n") })
		u.answers("app", usernet, "ps", "--format", "{{.Names}}")
		u.answers("container", usernet, "run", "--rm", "--network", "mynet", "--", "busybox", "wget", "-qO-",
			"http://shop/")
	})

	u.ok(usernet, "rm", "-f", "neighbour")
	u.ok(docker, "rm", "-f", "web", "app")
	if out := u.ok(usernet, "ps", "-aq"); out != "" {
		t.Errorf("left after docker rm: %q", out)
	}
	u.ok(docker, "network", "rm", "lan", "shared")
	if out := u.ok(usernet, "network", "ls", "--format", "{{.Name}}"); strings.Contains(out, "docker-") ||
		!strings.Contains(out, "mynet") {
		t.Errorf("left after docker network rm: %q", out)
	}
}
