package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dockerd starts Debian's rootless Docker, with slirp4netns's place taken, and returns its user, whose docker client
// speaks to it.
func dockerd(t *testing.T, environ ...string) *user {
	t.Helper()
	u := newUser(t)
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
	u.start("sh", "/usr/share/docker.io/contrib/dockerd-rootless.sh", "--storage-driver=vfs")
	eventually(t, func() error {
		if r := u.try(docker, "info"); r.code != 0 {
			return fmt.Errorf("dockerd does not answer: %v", r)
		}
		return nil
	})
	u.ok(docker, "import", "--change", "ENV PATH=/bin", image, "bb:1")
	return u
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
	u.ok(docker, "run", "-d", "--name", "web", "--network", "lan", "-p", "18701:80", "bb:1", "httpd", "-f", "-v", "-p", "80", "-h", "/var/www")
	if out := u.ok(docker, "run", "--rm", "--network", "lan", "bb:1", "wget", "-qO-", "http://web/"); out != "container" {
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
		v := *u
		v.environ = append(v.environ, "DOCKER_BUILDKIT=0")
		if out := v.ok(docker, "build", "--no-cache", dir); !strings.Contains(out, "outside") {
			t.Errorf("the build's network step says:\n%s", out)
		}
	})
}
