package engines

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// survives kills dockerd, the plugin and the daemon under containers of Docker.
func (u *pluggedDocker) survives(t *testing.T) {
	u.ok(usernet, "network", "create", "--subnet", "10.79.0.0/24", "wide")
	u.ok(docker, "network", "create", "-d", "usernet", "--ipam-driver", "usernet", "--ipam-opt", "network=wide", "wide")
	shared := filepath.Join(u.dir, "shared") // what containers write, for when no docker exec is to be had
	if err := os.Mkdir(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	u.ok(docker, "run", "-d", "--restart", "always", "--name", "web", "--network", "wide", "-p", "18751:80", "bb:1",
		"httpd", "-f", "-v", "-p", "80", "-h", "/var/www")
	u.ok(docker, "run", "-d", "--restart", "always", "--name", "app", "--network", "wide", "-v", shared+":/tmp", "bb:1",
		"sleep", "1000")
	k := talkers{t: t, u: u.user, exec: func(container string, command ...string) []string {
		return append([]string{docker, "exec", container}, command...)
	}}
	// talk looks at all ways to web but the one by docker exec.
	talk := func(when string) {
		t.Helper()
		eventually(t, func() error {
			if err := says("http://127.0.0.1:18751/", "container\n"); err != nil {
				return fmt.Errorf("%s, at its port: %w", when, err)
			}
			return nil
		})
		u.answers("container", usernet, "run", "--rm", "--network", "wide", "--", "busybox", "wget", "-qO-",
			"http://web/")
	}
	talk("at the beginning")

	t.Run("plugin", func(t *testing.T) {
		u.plugin(syscall.SIGKILL)
		talk("without the plugin")
		u.answers("container", docker, "exec", "app", "wget", "-qO-", "http://web/")
		u.plugin = u.startPlugin()
		u.answers("container", docker, "run", "--rm", "--network", "wide", "bb:1", "wget", "-qO-", "http://web/")
		u.ok(docker, "network", "create", "-d", "usernet", "--ipam-driver", "usernet", "later")
		u.ok(docker, "network", "rm", "later")
	})

	t.Run("dockerd", func(t *testing.T) {
		k.connect("app", "web")
		u.killDockerd()
		if err := os.WriteFile(filepath.Join(shared, "go"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if text, err := os.ReadFile(filepath.Join(shared, "said")); !strings.Contains(string(text), "after") {
				return fmt.Errorf("without dockerd the connection has said %q, %w", text, err)
			}
			return nil
		})
		talk("without dockerd")
		u.forgottenCalls()
		u.dockerd = u.startDockerd()
		u.answers("container", docker, "exec", "app", "wget", "-qO-", "http://web/")
		talk("with the next dockerd")
		eventually(t, func() error {
			if out := u.ok(usernet, "ps", "--format", "{{.Names}}"); len(strings.Fields(out)) != 2 {
				return fmt.Errorf("beside web and app there is %q", out)
			}
			if out := u.ok(usernet, "network", "ls", "--format", "{{.Name}}"); strings.Contains(out, "docker-") {
				return fmt.Errorf("what was made for a dockerd that was killed is still there: %q", out)
			}
			return nil
		})
	})

	t.Run("all", func(t *testing.T) {
		u.daemon(syscall.SIGKILL)
		u.plugin(syscall.SIGKILL)
		u.killDockerd()
		u.daemon, u.plugin, u.dockerd = u.daemonEnding(u.serve...), u.startPlugin(), u.startDockerd()
		u.answers("container", docker, "exec", "app", "wget", "-qO-", "http://web/")
		talk("after all were killed")
	})
	u.ok(docker, "rm", "-f", "web", "app")
	u.nothing("docker rm")
}

// killDockerd kills dockerd, and waits for the end of RootlessKit around it, and of containerd: the next dockerd takes
// one for running that is not reaped yet, and gives up when that does not answer.
func (u *pluggedDocker) killDockerd() {
	u.t.Helper()
	containerd := u.pidIn("run/docker/containerd/containerd.pid")
	if err := syscall.Kill(u.pidIn("run/docker.pid"), syscall.SIGKILL); err != nil {
		u.t.Fatal(err)
	}
	u.dockerd(0) // no signal: it ends by itself
	eventually(u.t, func() error {
		if err := syscall.Kill(containerd, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("containerd, process %d, is still there: %v", containerd, err)
		}
		return nil
	})
}

// pidIn is the number in a file below the user's directory.
func (u *user) pidIn(file string) int {
	u.t.Helper()
	text, err := os.ReadFile(filepath.Join(u.dir, file))
	if err != nil {
		u.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		u.t.Fatal(err)
	}
	return pid
}

// forgottenCalls are what a dockerd has sent that was killed before it wrote down what the answers were: one that
// reserves a subnet, and those that make a network.
func (u *user) forgottenCalls() {
	u.t.Helper()
	call := func(name, body string) {
		u.t.Helper()
		out := u.ok("curl", "-sS", "--unix-socket", filepath.Join(u.dir, "run/usernet/docker/usernet.sock"), "-d", body,
			"http://plugin/"+name)
		if strings.Contains(out, `"Err"`) {
			u.t.Fatalf("%s %s: %s", name, body, out)
		}
	}
	call("IpamDriver.RequestPool", `{"AddressSpace":"usernet","Pool":"10.78.1.0/24","V6":false}`)
	call("IpamDriver.RequestPool", `{"AddressSpace":"usernet","Pool":"10.78.2.0/24","V6":false}`)
	call("NetworkDriver.CreateNetwork",
		`{"NetworkID":"0123456789abcdef","IPv4Data":[{"AddressSpace":"usernet",`+
			`"Pool":"10.78.2.0/24","Gateway":"10.78.2.1/24"}]}`)
	out := u.ok(usernet, "network", "ls", "--format", "{{.Name}}")
	if !strings.Contains(out, "docker-pool-") || !strings.Contains(out, "docker-0123456789ab") {
		u.t.Fatalf("networks: %q", out)
	}
}
