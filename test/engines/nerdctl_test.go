package engines

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestNerdctl runs nerdctl over rootless containerd 1.6 and RootlessKit 1, in whose network namespace both are.
func TestNerdctl(t *testing.T) { runsNerdctl(t, " 1.6.") }

// TestDebian13Nerdctl runs it over containerd 1.7 and RootlessKit 2, with the network namespace detached.
func TestDebian13Nerdctl(t *testing.T) { runsNerdctl(t, " 1.7.", "--detach-netns") }

// runsNerdctl has nerdctl call the plugin by its OCI hook: ports, names, several networks, a daemon's and a container's
// end.
func runsNerdctl(t *testing.T, containerd string, rootlesskit ...string) {
	u := newUser(t)
	if v := u.ok("containerd", "--version"); !strings.Contains(v, containerd) {
		t.Fatalf("this test needs containerd %s: %s", containerd, v)
	}
	_, end := u.daemon()
	u.ok(usernet, "integrate", "cni", "--write")
	plugins, networks := filepath.Join(u.dir, "home/.local/share/usernet/cni"), filepath.Join(u.dir,
		"home/.config/cni/net.d")
	// A network called bridge is what containers are on that are given none.
	for network, keys := range map[string]string{"bridge": "", "lan": `"subnet": "10.62.0.0/24",`} {
		text := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [{"type": "usernet-cni",
			"network": "nerd-%[1]s", %s "capabilities": {"portMappings": true, "ips": true, "mac": true}}]}`,
			network, keys)
		if err := os.WriteFile(filepath.Join(networks, network+".conflist"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	u.environ = append(u.environ, "CNI_PATH="+plugins, "NETCONFPATH="+networks, "CONTAINERD_SNAPSHOTTER=native")
	n := nerd{u, filepath.Join(u.dir, "run/containerd-rootless")}
	n.startContainerd(rootlesskit...)
	eventually(t, func() error {
		if r := n.try("info"); r.code != 0 {
			return fmt.Errorf("containerd does not answer: %v", r)
		}
		return nil
	})
	n.ok("load", "-i", dockerArchive(t, u.dir))

	n.run("web", "-p", "18780:80", "-p", "127.0.0.1:18781:80", "bb:1", "httpd", "-f", "-p", "80", "-h", "/var/www")
	for _, url := range []string{"http://127.0.0.1:18780/", "http://192.0.2.2:18780/", "http://127.0.0.1:18781/"} {
		eventually(t, func() error { return says(url, "container\n") })
	}
	if err := refuses("192.0.2.2:18781"); err != nil {
		t.Errorf("a port of the loopback: %v", err)
	}
	fetchFromOutside(t, "http://192.0.2.2:18780/")
	// One party binds the host's port: nerdctl shows it as published, and RootlessKit has it.
	if out := n.ok("port", "web"); !strings.Contains(out, "18780") {
		t.Errorf("nerdctl port: %q", out)
	}
	if out := n.rootlesskitPorts(); !strings.Contains(out, "18780") {
		t.Errorf("RootlessKit's ports: %q", out)
	}
	if out := u.ok(usernet, "port", "web"); out != "" {
		t.Errorf("usernet binds what RootlessKit does: %q", out)
	}
	if r := n.try("run", "-d", "--cgroup-manager=none", "--name", "taken", "-p", "18780:80", "bb:1", "sleep",
		"1000"); r.code == 0 {
		t.Errorf("two containers have one port: %v", r)
	}
	n.ok("rm", "-f", "taken")

	n.run("app", "--network", "bridge", "bb:1", "sleep", "1000")
	n.run("two", "--network", "bridge", "--network", "lan", "-p", "18782:80/tcp", "-p", "18783:9000/udp", "bb:1",
		"sh", "-c", "helper udpserve :9000 & exec httpd -f -p 80 -h /var/www")
	for url, want := range map[string]string{
		"http://web/": "container", "http://two/": "container", "http://outside.example:8000/": "outside",
	} {
		u.answers(want, n.program(), "exec", "app", "wget", "-qO-", url)
	}
	if out := n.ok("exec", "app", "nslookup", "web"); !strings.Contains(out, n.address("web")) {
		t.Errorf("usernet's name server on a container of nerdctl's: %s", out)
	}
	u.answers("container", usernet, "run", "--rm", "--network", "nerd-bridge", "--", "busybox", "wget", "-qO-",
		"http://web/")
	u.answers("container", usernet, "run", "--rm", "--network", "nerd-lan", "--", "busybox", "wget", "-qO-",
		"http://two/")
	eventually(t, func() error { return says("http://127.0.0.1:18782/", "container\n") })
	eventually(t, func() error { return echoes("127.0.0.1:18783") })

	// The daemon's end: ports and connections of nerdctl's containers need it to reach each other alone.
	end(syscall.SIGKILL)
	eventually(t, func() error { return says("http://127.0.0.1:18780/", "container\n") })
	u.daemon()
	u.answers("container", n.program(), "exec", "app", "wget", "-qO-", "http://web/")

	n.ok("restart", "-t", "0", "web")
	eventually(t, func() error { return says("http://127.0.0.1:18780/", "container\n") })
	n.ok("stop", "-t", "0", "web")
	// RootlessKit keeps the port until nerdctl removes the container or starts it again; nobody is behind it.
	eventually(t, func() error {
		if says("http://127.0.0.1:18780/", "container\n") == nil {
			return errors.New("a container that was stopped answers")
		}
		return nil
	})
	n.ok("start", "web")
	eventually(t, func() error { return says("http://127.0.0.1:18780/", "container\n") })
	n.ok("rm", "-f", "web", "app", "two")
	u.nothing("nerdctl rm")
	if out := n.rootlesskitPorts(); strings.Contains(out, "1878") {
		t.Errorf("RootlessKit's ports after nerdctl rm: %q", out)
	}
	eventually(t, func() error {
		left, err := os.ReadDir(filepath.Join(u.dir, "run/usernet/cni"))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d relays are left after nerdctl rm", len(left))
		}
		return err
	})
}

// nerd is a user with rootless containerd, as containerd-rootless.sh starts it.
type nerd struct {
	*user
	state string // RootlessKit's directory, where nerdctl looks for it
}

// inRootlessKit is what containerd-rootless.sh does in RootlessKit's mount namespace: what is the host's is hidden.
const inRootlessKit = `rm -f /run/containerd /run/runc /run/xtables.lock
rm -f /var/lib/containerd /var/lib/cni /etc/containerd
mkdir -p /run/containerd /var/lib/containerd /var/lib/cni
exec containerd --config "$0"`

func (n nerd) startContainerd(rootlesskit ...string) {
	n.t.Helper()
	config := filepath.Join(n.dir, "containerd.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
		filepath.Join(n.dir, "containerd"))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
	args := append([]string{"--state-dir=" + n.state, "--net=slirp4netns", "--slirp4netns-binary=" + slirp4netns,
		"--mtu=65520", "--disable-host-loopback", "--port-driver=builtin", "--copy-up=/etc", "--copy-up=/run",
		"--copy-up=/var/lib", "--propagation=rslave"}, rootlesskit...)
	n.start("rootlesskit", append(args, "sh", "-c", inRootlessKit, config)...)
	n.t.Cleanup(func() { // containers outlive containerd
		for _, c := range strings.Fields(n.try("ps", "-aq").stdout) {
			n.try("rm", "-f", c)
		}
	})
}

// program is nerdctl, which scripts/engines.sh has built.
func (n nerd) program() string { return os.Getenv("USERNET_NERDCTL") }

func (n nerd) try(args ...string) result {
	n.t.Helper()
	return n.user.try(n.program(), args...)
}

func (n nerd) ok(args ...string) string {
	n.t.Helper()
	return n.user.ok(n.program(), args...)
}

// run starts a container in the background. There are no cgroups that a user without systemd may use.
func (n nerd) run(name string, args ...string) {
	n.t.Helper()
	n.ok(append([]string{"run", "-d", "--cgroup-manager=none", "--name", name}, args...)...)
}

// address is a container's on its first network, from usernet.
func (n nerd) address(name string) string {
	n.t.Helper()
	return n.user.ok(usernet, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
}

func (n nerd) rootlesskitPorts() string {
	n.t.Helper()
	return n.user.ok("rootlessctl", "--socket="+filepath.Join(n.state, "api.sock"), "list-ports")
}

// dockerArchive is the image as `docker save` writes one, called bb:1.
func dockerArchive(t *testing.T, dir string) string {
	t.Helper()
	layer, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "docker-archive.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, each := range []struct {
		name string
		text []byte
	}{
		{"layer.tar", layer},
		{"config.json", config},
		{"manifest.json", []byte(`[{"Config": "config.json", "RepoTags": ["bb:1"], "Layers": ["layer.tar"]}]`)},
	} {
		err := w.WriteHeader(&tar.Header{Name: each.name, Mode: 0o644, Size: int64(len(each.text))})
		if err == nil {
			_, err = w.Write(each.text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
