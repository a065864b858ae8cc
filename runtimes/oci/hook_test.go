package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// recorder is a daemon that notes what it is asked.
type recorder struct {
	attached []api.AttachRequest
	detached []string
	fails    error
	gone     error // what Detach returns
	said     strings.Builder
}

func (r *recorder) Attach(_ context.Context, q api.AttachRequest, netns *os.File) (api.AttachReply, error) {
	if netns == nil {
		return api.AttachReply{}, errors.New("no descriptor")
	}
	r.attached = append(r.attached, q)
	return api.AttachReply{Container: network.Container{ID: "id"},
		Files: api.StartReply{ResolvConf: "nameserver 127.0.0.11\n", Hosts: "10.0.0.2 web\n"}}, r.fails
}

func (r *recorder) Detach(_ context.Context, key string) error {
	r.detached = append(r.detached, key)
	return r.gone
}

func (r *recorder) DetachLater(string) error { return nil }

// bundle has a configuration with mounts, and returns its directory.
func bundle(t *testing.T, mounts string) string {
	t.Helper()
	dir := t.TempDir()
	config := `{"hostname": "webhost", "mounts": [` + mounts + `]}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (r *recorder) hook(stage, state string) Hook {
	return Hook{Stage: stage, State: strings.NewReader(state), Getenv: func(string) string { return "" },
		Socket: "/sock", Stderr: &r.said,
		open: func(string, func(string) string) (daemon, error) { return r, nil }}
}

// onNetworkOne is the state of a container in this process's namespaces, with its bundle, that is to be on a network.
func onNetworkOne(bundle string) string {
	return fmt.Sprintf(`{"id": "c1", "pid": %d, "bundle": %q, "annotations": {"usernet.network": "one"}}`,
		os.Getpid(), bundle)
}

func TestAnnotationsBecomeARequest(t *testing.T) {
	dir := bundle(t, "")
	r := &recorder{}
	state := fmt.Sprintf(`{"id": "c1", "pid": %d, "bundle": %q, "annotations": {
		"usernet.network": "one, two", "usernet.name": "web", "usernet.alias": "shop store",
		"usernet.publish": "8080:80,53:53/udp", "usernet.ip": "10.9.0.9,fd00::9", "usernet.mac": "02:00:00:00:00:09",
		"usernet.dns": "192.0.2.53", "usernet.egress": "deny", "usernet.allow-egress": "example.com:443",
		"other": "x"}}`, os.Getpid(), dir)
	if err := r.hook("createRuntime", state).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	q := r.attached[0]
	s := q.Spec
	if q.Holder != os.Getpid() || q.ParentHolds {
		t.Errorf("the attachment is held by %d (its parent: %t), not by the container", q.Holder, q.ParentHolds)
	}
	if q.Key != "oci/c1" || s.Name != "web" || s.Hostname != "webhost" || len(s.Networks) != 2 ||
		s.Networks[1].Network != "two" || len(s.Ports) != 2 {
		t.Errorf("%+v", q)
	}
	first := s.Networks[0]
	if fmt.Sprintf("%v %v %v %v", first.Aliases, first.IPv4, first.IPv6, first.MAC) !=
		"[shop store] 10.9.0.9 fd00::9 02:00:00:00:00:09" || s.Networks[1].IPv4.IsValid() {
		t.Errorf("%+v", s.Networks)
	}
	if strings.Join([]string{fmt.Sprint(s.DNS), s.Egress, fmt.Sprint(s.AllowEgress)}, " ") !=
		"[192.0.2.53] deny [example.com:443]" {
		t.Errorf("%+v", s)
	}
	err := r.hook("poststop", `{"id": "c1", "annotations": {"usernet.network": "one"}}`).Run(t.Context())
	if err != nil || fmt.Sprint(r.detached) != "[oci/c1]" {
		t.Errorf("poststop: %v, %v", err, r.detached)
	}
	r.gone = fmt.Errorf("%w (%w)", api.ErrNoDaemon, syscall.ECONNREFUSED)
	err = r.hook("poststop", `{"id": "c1", "annotations": {"usernet.network": "one"}}`).Run(t.Context())
	if err != nil || !strings.Contains(r.said.String(), "warning: no usernet daemon answers") {
		t.Errorf("poststop without a daemon: %v, said %q", err, r.said.String())
	}
}

func TestContainersWithoutTheAnnotationAreLeftAlone(t *testing.T) {
	r := &recorder{}
	h := r.hook("createContainer", `{"id": "c1", "annotations": {"usernet.name": "x"}}`)
	h.Socket, h.open = "", nil // no daemon has to be there
	if err := h.Run(t.Context()); err != nil || len(r.attached) != 0 {
		t.Errorf("%v, %+v", err, r.attached)
	}
}

// TestTheImagesEnvironmentIsNotBelieved: a socket that it names would have the caller's namespace.
func TestTheImagesEnvironmentIsNotBelieved(t *testing.T) {
	state := fmt.Sprintf(`{"id": "c1", "bundle": %q, "annotations": {"usernet.network": "one"}}`, bundle(t, ""))
	h := Hook{Stage: "createContainer", State: strings.NewReader(state), Getenv: func(string) string { return "/evil" }}
	if err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--host") {
		t.Errorf("%v", err)
	}
	r := &recorder{}
	h = Hook{Stage: "createContainer", State: strings.NewReader(state), Getenv: func(string) string { return "/evil" },
		Socket: "/given",
		open: func(socket string, getenv func(string) string) (daemon, error) {
			if socket != "/given" || getenv("XDG_RUNTIME_DIR") != "" {
				t.Errorf("asked at %s, with %q in the environment", socket, getenv("XDG_RUNTIME_DIR"))
			}
			return r, nil
		}}
	if err := h.Run(t.Context()); err != nil || !r.attached[0].ParentHolds || r.attached[0].Holder != 0 {
		t.Errorf("%v, %+v", err, r.attached)
	}
}

func TestFilesAreWrittenWhereTheBundleMountsThem(t *testing.T) {
	elsewhere := t.TempDir()
	secret := filepath.Join(elsewhere, "secret")
	for _, name := range []string{"resolv.conf", "hosts", "secret"} {
		if err := os.WriteFile(filepath.Join(elsewhere, name), []byte("a longer text that was there before\n"),
			0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(secret, filepath.Join(elsewhere, "link")); err != nil {
		t.Fatal(err)
	}
	mount := func(at, source string) string {
		return fmt.Sprintf(`{"destination": %q, "source": %q, "type": "bind"}`, at, source)
	}
	r := &recorder{}
	run := func(mounts string) error {
		return r.hook("createRuntime", onNetworkOne(bundle(t, mounts))).Run(t.Context())
	}
	if err := run(mount("/etc/resolv.conf", filepath.Join(elsewhere, "resolv.conf")) + "," +
		mount("/etc/hosts/", filepath.Join(elsewhere, "hosts"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"resolv.conf": "nameserver 127.0.0.11\n", "hosts": "10.0.0.2 web\n"} {
		if b, _ := os.ReadFile(filepath.Join(elsewhere, name)); string(b) != want {
			t.Errorf("%s: %q", name, b)
		}
	}
	if err := run(mount("/etc/hosts", filepath.Join(elsewhere, "link"))); err == nil {
		t.Error("a link was followed")
	}
	if b, _ := os.ReadFile(secret); !strings.HasPrefix(string(b), "a longer") {
		t.Errorf("a link's target was written: %q", b)
	}
	if len(r.detached) != 1 {
		t.Errorf("a container that cannot be set up stays attached: %v", r.detached)
	}
	if err := run(mount("/etc/resolv.conf", "/etc/resolv.conf")); err != nil {
		t.Errorf("the host's own file: %v", err)
	}
}

// TestPodmansRootHasTheFiles: Podman mounts none where a container has no network of its own. The image's links stay in
// it.
func TestPodmansRootHasTheFiles(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "resolv.conf")
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	run := func(manager string) {
		config := fmt.Sprintf(`{"root": {"path": "root"}, "annotations": {"io.container.manager": %q}}`, manager)
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := (&recorder{}).hook("createRuntime", onNetworkOne(dir)).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	run("another")
	if _, err := os.Stat(filepath.Join(root, "etc/hosts")); err == nil {
		t.Error("a root that may be shared was written")
	}
	run("libpod")
	for name, want := range map[string]string{"etc/resolv.conf": "nameserver 127.0.0.11\n",
		"etc/hosts": "10.0.0.2 web\n"} {
		if b, err := os.ReadFile(filepath.Join(root, name)); string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("the image's link led outside")
	}
	if err := os.RemoveAll(filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	if err := writeBelow(root, "etc/hosts", "text"); err == nil {
		t.Error("the image's /etc led outside")
	}
}

func TestBadStatesAndAnnotations(t *testing.T) {
	dir := bundle(t, "")
	on := func(rest string) string { // a state with these annotations beside its network
		return `{"id": "c", "bundle": "` + dir + `", "annotations": {"usernet.network": "n"` + rest + `}}`
	}
	for name, test := range map[string]struct{ stage, state, want string }{
		"no JSON":    {"createRuntime", `{"id": `, "standard input"},
		"no id":      {"createRuntime", `{"annotations": {"usernet.network": "n"}}`, "no id"},
		"a slip":     {"createRuntime", on(`, "usernet.publsh": "1:1"`), "usernet.publsh"},
		"a port":     {"createRuntime", on(`, "usernet.publish": "99999:1"`), "usernet.publish"},
		"an address": {"createRuntime", on(`, "usernet.ip": "300.1.1.1"`), "usernet.ip"},
		"a MAC":      {"createRuntime", on(`, "usernet.mac": "x"`), "usernet.mac"},
		"addresses":  {"createRuntime", on(`, "usernet.ip": "10.0.0.2,10.0.0.3"`), "one of each family"},
		"no network": {
			"createRuntime", `{"id": "c", "bundle": "` + dir + `", "annotations": {"usernet.network": " ,"}}`,
			"names no network",
		},
		"no bundle": {
			"createRuntime", `{"id": "c", "bundle": "/nonexistent", "annotations": {"usernet.network": "n"}}`,
			"/nonexistent/config.json",
		},
		"no process":  {"createRuntime", strings.Replace(on(""), `"id"`, `"pid": 0, "id"`, 1), "/proc/0/ns/net"},
		"no stage":    {"startContainer", on(""), "startContainer"},
		"daemon says": {"createContainer", on(""), "network n not found"},
	} {
		r := &recorder{fails: errors.New("network n not found")}
		err := r.hook(test.stage, test.state).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
