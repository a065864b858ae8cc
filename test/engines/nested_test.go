package engines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// nestedScript is run in a container of another engine: it has usernet's own containers there, of which one serves a
// page and others fetch it by name, the outside's by name, and the published port's.
const nestedScript = `
export HOME=/tmp/home XDG_RUNTIME_DIR=/tmp/run PATH=/bin
busybox mkdir -p -m 700 $HOME $XDG_RUNTIME_DIR
usernet check || exit 3
set -e
usernet network create mynet
usernet run -d --name web --network mynet -p 18080:80 -- httpd -f -p 80 -h /var/www
usernet run --rm --network mynet -- ip link show eth0
echo "by name: $(usernet run --rm --network mynet -- wget -qO- http://web/)"
echo "out: $(usernet run --rm --network mynet -- wget -qO- http://outside.example:8000/)"
echo "port: $(wget -qO- http://127.0.0.1:18080/)"
`

// nestedWorks are lines that nestedScript prints where everything works: by veth pairs, since there is no
// /dev/net/tun.
var nestedWorks = []string{
	"ok       user namespaces", "veth pairs with packet sockets", "eth0@un-eth0", "by name: container", "out: outside",
	"port: container",
}

// nests runs nestedScript by a command that gets the script's text as its last argument.
func (u *user) nests(want []string, code int, command ...string) {
	u.t.Helper()
	r := u.try(command[0], append(command[1:], "sh", "-c", nestedScript)...)
	for _, w := range want {
		if !strings.Contains(r.stdout, w) {
			u.t.Errorf("%q is not said", w)
		}
	}
	if r.code != code {
		u.t.Errorf("exit status %d, want %d", r.code, code)
	}
	if u.t.Failed() {
		u.t.Fatal(r)
	}
}

// filter writes the filter on system calls that Docker's containers need, and returns its file.
func (u *user) filter() string {
	u.t.Helper()
	u.ok(usernet, "integrate", "nesting", "--write")
	return filepath.Join(u.dir, "home/.config/usernet/nesting.json")
}

// TestUsernetInDocker runs usernet in containers of rootless Docker, which have neither privileges nor /dev/net/tun.
// Docker's own filter refuses to make namespaces, which `usernet check` says.
func TestUsernetInDocker(t *testing.T) {
	u := dockerd(t)
	run := []string{docker, "run", "--rm", "--privileged=false", "--volume=" + usernet + ":/bin/usernet:ro"}
	u.nests([]string{"MISSING  user namespaces", "usernet integrate nesting"}, 3, append(run, "bb:1")...)
	filter := "--security-opt=seccomp=" + u.filter()
	u.nests(append(nestedWorks, "limited  a /proc", "--security-opt systempaths=unconfined"), 0,
		append(run, filter, "bb:1")...)
	u.nests(append(nestedWorks, "ok       a /proc", "ok       ping"), 0,
		append(run, filter, "--security-opt=systempaths=unconfined",
			"--user=1000", "--cap-drop=ALL", "--security-opt=no-new-privileges",
			"--sysctl=net.ipv4.ping_group_range=0 65535", "bb:1")...)
}

// TestUsernetInPodman runs usernet in containers of Podman, whose filter allows namespaces but no host names.
func TestUsernetInPodman(t *testing.T) {
	p := newPodman(t, "crun")
	run := []string{"podman", "run", "--rm", "--privileged=false", "--network=slirp4netns",
		"--volume=" + usernet + ":/bin/usernet:ro"}
	p.nests(append(nestedWorks, "limited  host names", "limited  a /proc", "--security-opt unmask=ALL"), 0,
		append(run, "bb:1")...)
	p.nests(append(nestedWorks, "ok       host names", "ok       a /proc"), 0,
		append(run, "--security-opt=seccomp="+p.filter(), "--security-opt=unmask=ALL", "bb:1")...)
}

// TestUsernetInUsernet runs usernet in its own containers, with a root file system of their own, whose /dev has no
// net/tun.
func TestUsernetInUsernet(t *testing.T) {
	u := newUser(t)
	u.serve()
	u.ok(usernet, "network", "create", "outer")
	rootfs := filepath.Join(u.dir, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	u.ok("tar", "-C", rootfs, "-xf", image)
	if err := copyFile(usernet, filepath.Join(rootfs, "bin/usernet")); err != nil {
		t.Fatal(err)
	}
	run := []string{usernet, "run", "--rm", "--network=outer", "--rootfs=" + rootfs}
	u.nests([]string{"MISSING  user namespaces", "usernet integrate nesting"}, 3, run...)
	filter := "--security-opt=seccomp=" + u.filter()
	u.nests(append(nestedWorks, "limited  a /proc"), 0, append(run, filter)...)
	u.nests(append(nestedWorks, "ok       a /proc"), 0, append(run, filter, "--security-opt=systempaths=unconfined")...)
	u.nests(append(nestedWorks, "ok       a /proc"), 0, append(run, "--privileged")...)
}

// innerScript is run in a container of Podman by Podman; %[1]s is its --network, %[2]s what publishes ports there,
// and %[3]s an image.
const innerScript = `
set -e
export PATH=/usr/bin:/usr/sbin XDG_RUNTIME_DIR=/tmp/run
mkdir -m 700 $XDG_RUNTIME_DIR
podman import --change 'ENV PATH=/bin' %[3]s bb:1
podman run --rm --network %[1]s bb:1 sh -c 'ip link; echo "out: $(wget -qO- http://outside.example:8000/)"'
podman run -d --name web --network %[2]s -p 18080:80 bb:1 httpd -f -p 80 -h /var/www
until page=$(busybox wget -qO- http://127.0.0.1:18080/); do sleep 0.1; done
echo "port: $page"
podman rm --force --time 0 web
`

// runsPodman has Podman run containers in a container of Podman, over usernet in both, without /dev/net/tun inside.
// The one outside shows its whole /proc (--security-opt unmask=ALL), without which the kernel allows no second one.
func (p *podman) runsPodman(network, inner, publishing, device string) {
	p.t.Helper()
	p.ok("podman", "import", nestedPodman(p.t), "nested:1")
	dir := filepath.Dir(usernet)
	out := p.ok("podman", "run", "--rm", "--privileged=false", "--security-opt=unmask=ALL", "--network="+network,
		"--volume=/usr:/usr:ro", "--volume="+dir+":"+dir+":ro", "nested:1", "sh", "-c",
		fmt.Sprintf(innerScript, inner, publishing, image))
	for _, w := range []string{device, "out: outside", "port: container"} {
		if !strings.Contains(out, w) {
			p.t.Errorf("%q is not in:\n%s", w, out)
		}
	}
}

// nestedPodman archives a root file system in which this machine's Podman runs: it has this machine's programs, by a
// volume at /usr. It is configured as Podman's own image for that is: without cgroups and host names, which it may
// not set there.
func nestedPodman(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"usr", "etc/containers", "tmp", "proc", "sys", "dev", "run", "var/tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+d, filepath.Join(dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\n", "group": "root:x:0:\n", "subuid": "root:2000:30000\n",
		"subgid":                  "root:2000:30000\n",
		"containers/policy.json":  `{"default": [{"type": "insecureAcceptAnything"}]}`,
		"containers/storage.conf": "[storage]\ndriver=\"vfs\"\nrunroot=\"/run/storage\"\ngraphroot=\"/var/storage\"\n",
		"containers/containers.conf": fmt.Sprintf("[containers]\ncgroups=\"disabled\"\nutsns=\"host\"\n[engine]\nruntime=\"crun\"\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\n"+
			"network_cmd_path=%q\nhelper_binaries_dir=[%q, \"/usr/libexec/podman\", \"/usr/lib/podman\", \"/usr/bin\"]\n",
			slirp4netns, filepath.Dir(usernet)),
	} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(t.TempDir(), "nested.tar")
	if out, err := exec.Command("tar", "-C", dir, "--owner=0", "--group=0", "-cf", archive,
		".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return archive
}

// TestPodmanInPodman: in slirp4netns's place.
func TestPodmanInPodman(t *testing.T) {
	newPodman(t, "crun").runsPodman("slirp4netns", "slirp4netns", "slirp4netns:port_handler=slirp4netns",
		"tap0@un-tap0")
}

// TestPodman5InPodman: in pasta's place.
func TestPodman5InPodman(t *testing.T) {
	newPodman5(t).runsPodman("pasta", "pasta", "pasta", "eth0@un-eth0")
}
