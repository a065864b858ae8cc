package engines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// dockerd starts Debian's rootless Docker, with slirp4netns's place taken, and returns its user, whose docker client
// speaks to it.
func dockerd(t *testing.T, environ ...string) *user {
	t.Helper()
	u := newUser(t)
	u.startFirstDockerd(environ...)
	return u
}

// startFirstDockerd starts rootless Docker for the user, with an image, and returns what ends it.
func (u *user) startFirstDockerd(environ ...string) (end func(syscall.Signal)) {
	t := u.t
	t.Helper()
	bin := filepath.Join(u.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(slirp4netns, filepath.Join(bin, "slirp4netns")); err != nil {
		t.Fatal(err)
	}
	u.path(bin)
	run := filepath.Join(u.dir, "run")
	u.environ = append(append(u.environ, "DOCKER_HOST=unix://"+filepath.Join(run, "docker.sock")), environ...)
	end = u.startDockerd()
	u.ok(docker, "import", "--change", "ENV PATH=/bin", image, "bb:1")
	return end
}

// startDockerd starts rootless Docker, the first time or again, and waits until it answers.
func (u *user) startDockerd() (end func(syscall.Signal)) {
	u.t.Helper()
	// Of a dockerd that was killed, the next one's containerd leaves the shims.
	u.t.Cleanup(func() { endWith(u.t, "-address "+filepath.Join(u.dir, "run/docker/containerd/containerd.sock")) })
	_, end = u.startEnding("sh", "/usr/share/docker.io/contrib/dockerd-rootless.sh", "--storage-driver=vfs")
	eventually(u.t, func() error {
		if r := u.try(docker, "info"); r.code != 0 {
			return fmt.Errorf("dockerd does not answer: %v", r)
		}
		return nil
	})
	return end
}

// docker is Debian's own client, which fits its daemon.
const docker = "/usr/bin/docker"

// TestRootlessDocker runs containers, networks, ports and a build.
func TestRootlessDocker(t *testing.T) {
	u := dockerd(t)
	for name, c := range map[string]struct{ command, want string }{
		"out by address": {"wget -qO- http://192.0.2.1:8000/", "outside"},
		"out by name":    {"wget -qO- http://outside.example:8000/", "outside"},
		"source":         {"sleep 1 | nc 192.0.2.1 7000", "192.0.2.2"},
	} {
		if out := u.ok(docker, "run", "--rm", "bb:1", "sh", "-c", c.command); out != c.want {
			t.Errorf("%s: %q, want %q", name, out, c.want)
		}
	}
	u.ok(docker, "network", "create", "lan")
	u.ok(docker, "run", "-d", "--name", "web", "--network", "lan", "-p", "18701:80", "bb:1", "httpd", "-f", "-v", "-p",
		"80", "-h", "/var/www")
	if out := u.ok(docker, "run", "--rm", "--network", "lan", "bb:1", "wget", "-qO-", "http://web/"); out !=
		"container" {
		t.Errorf("by name: %q", out)
	}
	for _, url := range []string{"http://127.0.0.1:18701/", "http://192.0.2.2:18701/"} {
		eventually(t, func() error { return says(url, "container\n") })
	}
	t.Run("build", func(t *testing.T) {
		dir := filepath.Join(u.dir, "build")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		file := "FROM bb:1\nRUN wget -qO /page http://outside.example:8000/ && cat /page\n"
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, kit := range []string{"0", "1"} { // BuildKit is in the daemon, and so in RootlessKit's namespace
			v := *u
			v.environ = append(v.environ, "DOCKER_BUILDKIT="+kit)
			if r := v.try(docker, "build", "--progress=plain", "--no-cache", dir); r.code != 0 || !strings.Contains(
				r.stdout+r.stderr, "outside") {
				t.Errorf("with DOCKER_BUILDKIT=%s, the build's network step: %v", kit, r)
			}
		}
	})
	t.Run("compose", func(t *testing.T) { composes(t, u) })
}

const composeFile = `version: "3"
services:
  back: {image: "bb:1", command: [httpd, -f, -p, "80", -h, /var/www]}
  front:
    image: bb:1
    command: [sh, -c, "mkdir -p /www; until wget -qO /www/index.html http://back/; do sleep 1; done; exec httpd -f -p 80 -h /www"]
    depends_on: [back]
    ports: ["18711:80"]
`

// composes has docker-compose start two services, of which one asks the other, and publishes a port.
func composes(t *testing.T, u *user) {
	compose, err := exec.LookPath("docker-compose")
	if err != nil {
		t.Skip("docker-compose is missing; as root: apt-get install docker-compose")
	}
	dir := filepath.Join(u.dir, "pair")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "docker-compose.yml")
	if err := os.WriteFile(file, []byte(composeFile), 0o644); err != nil {
		t.Fatal(err)
	}
	u.ok(compose, "-f", file, "up", "-d")
	eventually(t, func() error { return says("http://192.0.2.2:18711/", "container\n") })
	u.ok(compose, "-f", file, "down", "-t", "0")
}

// TestRootlessDockerKeepsSources: where RootlessKit leaves ports to slirp4netns's place, containers see who asks.
func TestRootlessDockerKeepsSources(t *testing.T) {
	u := dockerd(t, "DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=slirp4netns")
	u.ok(docker, "run", "-d", "--name", "web", "-p", "18721:80", "bb:1", "httpd", "-f", "-v", "-p", "80", "-h",
		"/var/www")
	u.seesClient("web", "192.0.2.2:18721")
}

// seesClient has the machine outside fetch a page of a container, which has to know it by its address.
func (u *user) seesClient(container, at string) {
	u.t.Helper()
	fetchFromOutside(u.t, "http://"+at+"/")
	eventually(u.t, func() error {
		if r := u.try(docker, "logs", container); !strings.Contains(r.stdout+r.stderr, "192.0.2.1]:") {
			return fmt.Errorf("the client's address is not in: %v", r)
		}
		return nil
	})
}

// TestRootlessDockerJoinsNetworks has a whole rootless Docker on a network of usernet's daemon.
func TestRootlessDockerJoinsNetworks(t *testing.T) {
	for _, driver := range []string{"builtin", "slirp4netns"} {
		t.Run(driver, func(t *testing.T) {
			u := newUser(t)
			u.serve()
			u.ok(usernet, "network", "create", "--subnet", "10.50.0.0/24", "mynet")
			u.ok(usernet, "run", "-d", "--name", "web", "--network", "mynet", "--", "busybox", "httpd", "-f", "-p",
				"80", "-h", "/etc/default")
			u.startFirstDockerd("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER="+driver, "USERNET_NETWORK=mynet",
				"USERNET_NAME=docker")
			if out := u.ok(docker, "run", "--rm", "bb:1", "nslookup", "web"); !strings.Contains(out, "10.50.0.2") {
				t.Errorf("a container asks for its host's neighbour: %s", out)
			}
			if out := u.ok(docker, "run", "--rm", "bb:1", "wget", "-qO-", "http://outside.example:8000/"); out !=
				"outside" {
				t.Errorf("out: %s", out)
			}
			u.ok(docker, "run", "-d", "--name", "app", "-p", "18731:80", "bb:1", "httpd", "-f", "-v", "-p", "80", "-h",
				"/var/www")
			eventually(t, func() error { return says("http://127.0.0.1:18731/", "container\n") })
			if driver == "slirp4netns" {
				if out := u.ok(usernet, "port", "docker"); !strings.Contains(out, "18731") {
					t.Errorf("the daemon does not publish the port: %s", out)
				}
				u.seesClient("app", "192.0.2.2:18731")
			}
			u.ok(docker, "rm", "-f", "app")
			u.ok(usernet, "rm", "-f", "web")
		})
	}
}
