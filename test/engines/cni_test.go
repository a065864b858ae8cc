package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// daemon starts usernet's daemon as the user whose engine will find it, and returns its log, and what ends it with a
// signal.
func (u *user) daemon() (log string, end func(syscall.Signal)) {
	u.t.Helper()
	log, end = u.startEnding(usernet, "serve")
	eventually(u.t, func() error {
		if r := u.try(usernet, "network", "ls"); r.code != 0 || !strings.Contains(r.stdout, "bridge") {
			return fmt.Errorf("no daemon yet: %v", r)
		}
		return nil
	})
	return log, end
}

// newCNIPodman is Podman with its CNI backend, and the networks un1 and un2 over the plugin. end ends the daemon.
func newCNIPodman(t *testing.T) (p *podman, end func(syscall.Signal)) {
	t.Helper()
	p = newPodman(t, "crun")
	_, end = p.daemon()
	config := filepath.Join(p.dir, "home/.config")
	plugins, networks := filepath.Join(p.dir, "cni"), filepath.Join(config, "cni/net.d")
	for _, dir := range []string{plugins, networks} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(usernet, filepath.Join(plugins, "usernet-cni")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"un1", "un2"} {
		text := fmt.Sprintf(`{"cniVersion": "0.4.0", "name": %q, "plugins": [{"type": "usernet-cni",
			"capabilities": {"portMappings": true, "ips": true, "aliases": true}}]}`, name)
		if err := os.WriteFile(filepath.Join(networks, name+".conflist"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(config, "containers/containers.conf")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, fmt.Sprintf("[network]\nnetwork_backend=\"cni\"\ncni_plugin_dirs=[%q]\n", plugins)...)
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return p, end
}

// TestPodmanOverCNI has Podman's CNI backend call the plugin: names, addresses, ports, several networks, and a daemon's
// end.
func TestPodmanOverCNI(t *testing.T) {
	p, end := newCNIPodman(t)
	p.ok("podman", "run", "-d", "--name", "web", "--network", "un1", "--network-alias", "shop", "-p", "18490:80",
		"bb:1",
		"httpd", "-f", "-p", "80", "-h", "/var/www")
	if out := p.run("--network", "un1", "bb:1", "wget", "-qO-", "http://web/", "http://shop/"); out !=
		"container\ncontainer" {
		t.Errorf("by name: %q", out)
	}
	if out := p.run("--network", "un1", "bb:1", "wget", "-qO-", "http://192.0.2.1:8000/"); out != "outside" {
		t.Errorf("out: %q", out)
	}
	eventually(t, func() error { return says("http://127.0.0.1:18490/", "container\n") })
	if out := p.run("--network", "un1", "--network", "un2", "bb:1", "ip", "-o", "addr"); !strings.Contains(out,
		"eth0") || !strings.Contains(out, "eth1") {
		t.Errorf("two networks:\n%s", out)
	}
	if out := p.ok(usernet, "ps", "--format", "{{.Names}}"); out != "web" {
		t.Errorf("usernet sees %q", out)
	}
	p.ok("podman", "run", "-d", "--name", "app", "--network", "un1", "bb:1", "sleep", "1000")
	talkers{t: t, u: p.user, exec: podmanExec}.survive(end, "app", "web", "http://127.0.0.1:18490/")
	p.ok("podman", "rm", "--force", "--time", "0", "web", "app")
	if out := p.ok(usernet, "ps", "-aq"); out != "" {
		t.Errorf("left after podman rm: %q", out)
	}
}
