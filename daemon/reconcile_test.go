package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// fakeSandboxes stands for namespaces: what is asked for is noted, and TAPs are ends of socket pairs.
type fakeSandboxes struct {
	mu       sync.Mutex // guards the rest
	requests []string
	taps     map[string]int // the other end of an interface's, by name: the latest, if there are several
	replaced []int          // the other ends of those before
	fail     error          // of the next Configure
	lose     bool           // Configure makes no TAPs
	inside   map[int]sandbox.Namespaces
	paths    map[string]any // by path: a sandbox.NamespaceID, or an error other than os.ErrNotExist
}

func (f *fakeSandboxes) Configure(_ context.Context, _ sandbox.Target, r sandbox.Request) (*sandbox.Reply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail; err != nil {
		f.fail = nil
		return nil, err
	}
	reply := &sandbox.Reply{TAPs: map[string]*os.File{}}
	for _, name := range r.Remove {
		f.requests = append(f.requests, "remove "+name)
	}
	for _, i := range r.Add {
		f.requests = append(f.requests, "add "+i.Name)
		if f.lose {
			continue
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		reply.TAPs[i.Name] = os.NewFile(uintptr(fds[0]), i.Name)
		if old, is := f.taps[i.Name]; is {
			f.replaced = append(f.replaced, old)
		}
		f.taps[i.Name] = fds[1]
	}
	for _, route := range r.DefaultRoutes {
		f.requests = append(f.requests, fmt.Sprintf("route by %s via %s", route.Interface, route.Via))
	}
	return reply, nil
}

func (f *fakeSandboxes) Namespace(path string) (dev, ino uint64, err error) {
	switch is := f.paths[path].(type) {
	case sandbox.NamespaceID:
		return is.Dev, is.Ino, nil
	case error:
		return 0, 0, is
	}
	return 0, 0, os.ErrNotExist
}

func (f *fakeSandboxes) Namespaces(pid int) (sandbox.Namespaces, error) {
	if in, ok := f.inside[pid]; ok {
		return in, nil
	}
	return sandbox.Namespaces{}, os.ErrPermission
}

// asked returns what was asked for since it was last called.
func (f *fakeSandboxes) asked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := strings.Join(f.requests, ", ")
	f.requests = nil
	return text
}

func newFakeDaemon(t *testing.T) (*Daemon, *fakeSandboxes) {
	t.Helper()
	d, f := newTestDaemon(t), newFakeSandboxes(t)
	d.sandboxes = f
	return d, f
}

func newFakeSandboxes(t *testing.T) *fakeSandboxes {
	t.Helper()
	f := &fakeSandboxes{taps: map[string]int{}, inside: map[int]sandbox.Namespaces{}}
	t.Cleanup(func() {
		for _, fd := range slices.AppendSeq(f.replaced, maps.Values(f.taps)) {
			_ = unix.Close(fd)
		}
	})
	return f
}

// startAttached makes a container of a process that does nothing.
func startAttached(t *testing.T, d *Daemon, name, on string) (*network.Container, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command("sleep", "1000000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	c, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: name, NetworkMode: on, Attached: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.StartContainer(t.Context(), c.ID, api.Started{Pid: cmd.Process.Pid}); err != nil {
		t.Fatal(err)
	}
	if c, err = d.Container(c.ID); err != nil {
		t.Fatal(err)
	}
	return c, cmd
}

// arp asks over an interface who has an address, and returns the MAC that answers.
func arp(t *testing.T, fd int, e *network.Endpoint) net.HardwareAddr {
	t.Helper()
	ip := e.IPv4.Addr().As4()
	gateway := e.Gateway4.As4()
	frame := make([]byte, 10, 64) // the virtio header: nothing is left to be done
	frame = append(frame, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	frame = append(append(frame, e.MAC[:]...), 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(append(frame, e.MAC[:]...), ip[:]...), make([]byte, 6)...)
	frame = append(frame, gateway[:]...)
	if _, err := unix.Write(fd, frame); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO,
		&unix.Timeval{Sec: int64(patience / time.Second)}); err != nil {
		t.Fatal(err)
	}
	for {
		buf := make([]byte, 2048)
		n, err := unix.Read(fd, buf)
		if err != nil {
			t.Fatalf("nobody answers: %v", err)
		}
		if f := buf[10:n]; len(f) >= 42 && binary.BigEndian.Uint16(f[12:]) == 0x0806 && f[21] == 2 &&
			bytes.Equal(f[28:32], gateway[:]) {
			return slices.Clone(f[22:28])
		}
	}
}

// TestContainerComesAndGoes follows an attached container through its life, with all that is asked for in its
// namespace, and with a frame through each of its interfaces.
func TestContainerComesAndGoes(t *testing.T) {
	d, f := newFakeDaemon(t)
	since := time.Now()
	for _, name := range []string{"one", "two"} {
		if _, _, err := d.CreateNetwork(t.Context(), network.NetworkSpec{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	c, process := startAttached(t, d, "c1", "one")
	if got := f.asked(); got != "add eth0, route by eth0 via "+c.Endpoints[0].Gateway4.String() {
		t.Errorf("at its start: %s", got)
	}
	if got, want := arp(t, f.taps["eth0"], c.Endpoints[0]).String(), "02:42:ac:12:00:01"; got != want {
		t.Errorf("the gateway is %s, want %s", got, want)
	}
	if _, err := d.StartContainer(t.Context(), c.ID, api.Started{Pid: process.Process.Pid}); err == nil {
		t.Error("it was started twice")
	}

	f.fail = errors.New("no")
	if err := d.Connect(t.Context(), "two", "c1", network.EndpointSpec{}); !errors.Is(err, f.fail) &&
		!strings.Contains(fmt.Sprint(err), "no") {
		t.Errorf("a network that cannot be connected: %v", err)
	}
	if c, _ = d.Container("c1"); len(c.Endpoints) != 1 {
		t.Errorf("its endpoint stays: %+v", c.Endpoints)
	}
	if err := d.Connect(t.Context(), "two", "c1", network.EndpointSpec{}); err != nil {
		t.Fatal(err)
	}
	if got := f.asked(); !strings.HasPrefix(got, "add eth1, route by eth0") {
		t.Errorf("at the connection: %s", got)
	}
	c, _ = d.Container("c1")
	arp(t, f.taps["eth1"], c.Endpoints[1])
	if err := d.RemoveNetwork(t.Context(), "two"); err == nil {
		t.Error("a network that is in use is removed")
	}
	if err := d.Disconnect(t.Context(), "one", "c1", false); err != nil {
		t.Fatal(err)
	}
	if got := f.asked(); got != "remove eth0, route by eth1 via "+c.Endpoints[1].Gateway4.String() {
		t.Errorf("at the disconnection: %s", got)
	}
	if err := d.RenameContainer(t.Context(), "c1", "renamed"); err != nil {
		t.Fatal(err)
	}
	if b := d.bridge(c.Endpoints[1].NetworkID); b != nil {
		if _, name := b.Owner(c.Endpoints[1].IPv4.Addr()); name != "renamed" {
			t.Errorf("flows show %s", name)
		}
	}

	_ = process.Process.Kill()
	_ = process.Wait()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := d.Container(c.ID); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("its end is not noticed")
		}
	}
	var events []string
	if err := d.Events(t.Context(), since, time.Now(), func(e api.Event) error {
		events = append(events, e.Type+" "+e.Action)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"network create", "network create", "container create", "network connect", "container start",
		"network connect", "network disconnect", "container rename", "container die", "network disconnect",
		"container destroy",
	}
	if !slices.Equal(events, want) {
		t.Errorf("events:\n%v, want\n%v", events, want)
	}
	if err := d.RemoveNetwork(t.Context(), "two"); err != nil {
		t.Errorf("a network that nobody uses any more: %v", err)
	}
}

// TestFailedStartLeavesNothing has the namespace refuse: the container stays created, with no way onto the network.
func TestFailedStartLeavesNothing(t *testing.T) {
	d, f := newFakeDaemon(t)
	c, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: "c1", Attached: true})
	if err != nil {
		t.Fatal(err)
	}
	f.fail = errors.New("operation not permitted")
	if _, err := d.StartContainer(t.Context(), c.ID, api.Started{Pid: os.Getpid()}); err == nil ||
		!strings.Contains(err.Error(), "not permitted") {
		t.Errorf("%v", err)
	}
	if c, err = d.Container("c1"); err != nil || c.Status != network.Created {
		t.Errorf("%+v, %v", c, err)
	}
	if b := d.bridge(c.Endpoints[0].NetworkID); b != nil {
		if id, _ := b.Owner(c.Endpoints[0].IPv4.Addr()); id != "" {
			t.Errorf("its address is %s's", id)
		}
	}
	if _, err := d.StartContainer(t.Context(), c.ID, api.Started{}); err == nil {
		t.Error("a container of no process and no namespace is started")
	}
}

// TestPeersInContainersAreRefused asks for processes in and out of a container's user namespace.
func TestPeersInContainersAreRefused(t *testing.T) {
	d, f := newFakeDaemon(t)
	if err := d.AllowPeer(1); err != nil {
		t.Errorf("without containers: %v", err)
	}
	own, box, nested, elsewhere := sandbox.NamespaceID{
		Ino: 1,
	}, sandbox.NamespaceID{
		Ino: 2,
	}, sandbox.NamespaceID{
		Ino: 3,
	}, sandbox.NamespaceID{
		Ino: 4,
	}
	f.inside = map[int]sandbox.Namespaces{
		10: {User: []sandbox.NamespaceID{own}},
		11: {User: []sandbox.NamespaceID{box, own}},
		12: {User: []sandbox.NamespaceID{nested, box, own}},
		13: {User: []sandbox.NamespaceID{elsewhere, own}},
	}
	c, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	mark := func(share bool) {
		t.Helper()
		_, err := d.model.UpdateContainer(c.ID, func(c *network.Container) error {
			c.UserNSID, c.ShareAPI = network.NamespaceID(box), share
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, share := range []bool{false, true} {
		mark(share)
		for pid, inside := range map[int]bool{10: false, 11: true, 12: true, 13: false, 99: true} {
			// 99: nobody can tell
			if err := d.AllowPeer(pid); (err != nil) != (inside && !share) {
				t.Errorf("process %d, with share %v: %v", pid, share, err)
			}
		}
	}
}

// TestPeersInAttachedNamespacesAreRefused asks for processes in and below the user namespace that an attached network
// namespace belongs to: the runtime's own tools are in the daemon's network namespace, and are answered.
func TestPeersInAttachedNamespacesAreRefused(t *testing.T) {
	d, f := newFakeDaemon(t)
	var host sandbox.NamespaceID
	var err error
	if host.Dev, host.Ino, err = (*sandbox.Helper)(nil).Namespace("/proc/self/ns/net"); err != nil {
		t.Fatal(err)
	}
	own, podman, nested, elsewhere := sandbox.NamespaceID{
		Ino: 1,
	}, sandbox.NamespaceID{
		Ino: 2,
	}, sandbox.NamespaceID{
		Ino: 3,
	}, sandbox.NamespaceID{
		Ino: 4,
	}
	attached, another := sandbox.NamespaceID{Ino: 11}, sandbox.NamespaceID{Ino: 12}
	var pids sandbox.NamespaceID
	if pids.Dev, pids.Ino, err = (*sandbox.Helper)(nil).Namespace("/proc/self/ns/pid"); err != nil {
		t.Fatal(err)
	}
	f.inside = map[int]sandbox.Namespaces{
		10: {User: []sandbox.NamespaceID{own}, Net: host},
		11: {User: []sandbox.NamespaceID{podman, own}, Net: host},
		12: {User: []sandbox.NamespaceID{podman, own}, Net: attached},
		13: {User: []sandbox.NamespaceID{nested, podman, own}, Net: another},
		14: {User: []sandbox.NamespaceID{elsewhere, own}, Net: another},
		15: {User: []sandbox.NamespaceID{own}, Net: attached},
		16: {User: []sandbox.NamespaceID{podman, own}, Net: attached, PID: pids},
		17: {User: []sandbox.NamespaceID{podman, own}, Net: another, PID: pids}, // a network plugin of Podman's
	}
	for _, test := range []struct {
		what    string
		owner   sandbox.NamespaceID
		share   bool
		refused []int
	}{
		{"of another user namespace", podman, false, []int{12, 13, 16, 99}}, // 99: nobody can tell
		{"of the daemon's own", sandbox.NamespaceID{}, false, []int{12, 13, 14, 15, 16, 99}},
		{"that shares the API", podman, true, nil},
	} {
		c, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{
			Name:     "c1",
			Attached: true,
			NetNSID:  network.NamespaceID(attached),
			UserNSID: network.NamespaceID(test.owner),
			ShareAPI: test.share,
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range []int{10, 11, 12, 13, 14, 15, 16, 17, 99} {
			if err := d.AllowPeer(pid); (err != nil) != slices.Contains(test.refused, pid) {
				t.Errorf("beside a namespace %s, process %d: %v", test.what, pid, err)
			}
		}
		if err := d.RemoveContainer(t.Context(), c.ID, true); err != nil {
			t.Fatal(err)
		}
	}
}
