package libnetwork

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

func (f *fakeDaemon) Networks(context.Context, api.Filters) (list []dockernet.Summary, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, spec := range f.networks {
		n := dockernet.Summary{Network: dockernet.Network{ID: name, Name: name, Labels: spec.Labels}}
		for _, p := range spec.Pools {
			n.IPAM.Config = append(n.IPAM.Config, dockernet.IPAMConfig{Subnet: p.Subnet})
		}
		list = append(list, n)
	}
	return list, nil
}

// left are the names of networks and the keys of attachments.
func (f *fakeDaemon) left() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range f.networks {
		names = append(names, name)
	}
	for key := range f.attached {
		names = append(names, key)
	}
	return strings.Join(names, " ")
}

// answering is Docker's API, which knows one network, with the subnet 10.1.0.0/24, and an endpoint on it. It returns
// its socket, and what has it answer: until then it does as while dockerd starts.
func answering(t *testing.T, dir string) (socket string, ready func()) {
	t.Helper()
	socket = filepath.Join(dir, "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	m := http.NewServeMux()
	known := `{"Id":"known","IPAM":{"Driver":"usernet","Config":[{"Subnet":"10.1.0.0/24"}]},"Containers":{"c":{"EndpointID":"ep"}}}`
	for path, text := range map[string]string{"/networks": "[" + known + "]", "/networks/known": known} {
		m.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			select {
			case <-started:
				_, _ = fmt.Fprint(w, text)
			default:
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
	}
	server := &http.Server{Handler: m}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { _ = server.Close(); served.Wait() })
	return socket, func() { close(started) }
}

// TestAnotherDockerdKnowsLess: what a dockerd has left that was killed between two calls is removed once the next one
// answers, and nothing else: not what that one makes meanwhile, and not what it knows.
func TestAnotherDockerdKnowsLess(t *testing.T) {
	dir, f := t.TempDir(), newFake()
	socket, ready := answering(t, dir)
	pool := func(i int) string { return fmt.Sprintf(`{"Pool":"10.%d.0.0/24"}`, i) }

	d := plugged(t, f, dir, network.DriverBridge)
	d.p.namer = newNamer(socket, func(context.Context) (daemon, error) { return f, nil }, d.p.log)
	create := func(id string, i int) {
		d.says("10.", "IpamDriver.RequestPool", pool(i))
		d.says(`{}`, "NetworkDriver.CreateNetwork", fmt.Sprintf(
			`{"NetworkID":%q,"IPv4Data":[{"AddressSpace":"usernet","Gateway":"10.%d.0.1/24","Pool":"10.%d.0.0/24"}]}`, id, i, i))
	}
	create("known", 1)
	create("lost", 2)
	d.says("10.3.0.0/24", "IpamDriver.RequestPool", pool(3))
	for _, key := range []string{"docker/known/ep", "docker/known/gone", "docker/lost/gone"} {
		f.attached[key] = network.Container{ID: key, Endpoints: []*network.Endpoint{{Key: key}}}
	}
	f.networks["theirs"] = network.NetworkSpec{Name: "theirs"}
	if was := d.p.state.copy().Docker; !strings.HasPrefix(was, fmt.Sprint(os.Getpid())+"/") {
		t.Fatalf("the dockerd that called was %q", was)
	}

	if err := d.p.state.change(func(c *content) { c.Docker = "1/1" }); err != nil { // the calls above were another's
		t.Fatal(err)
	}
	create("new", 4)
	ready()
	deadline := time.Now().Add(30 * time.Second)
	for {
		left := f.left()
		gone := true
		for _, name := range []string{"docker-lost", reservation, "gone"} {
			gone = gone && !strings.Contains(left, name)
		}
		if gone {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %s", left)
		}
		time.Sleep(5 * time.Millisecond)
	}
	d.p.namer.swept.Wait()
	for _, name := range []string{"docker-known", "docker-new", "docker/known/ep", "theirs"} {
		if left := f.left(); !strings.Contains(left, name) {
			t.Errorf("%s is not there any more: %s", name, left)
		}
	}
	now := d.p.state.copy()
	if len(now.Networks) != 2 || len(now.Pools) != 2 || now.Pools["10.1.0.0/24"].Uses != 1 ||
		now.Pools["10.4.0.0/24"].Uses != 1 {
		t.Errorf("the plugin knows %+v", now)
	}
}

// TestAnotherProgramAtDockersSocket is not asked what there is: it would know nothing.
func TestAnotherProgramAtDockersSocket(t *testing.T) {
	dir := t.TempDir()
	socket, ready := answering(t, dir)
	ready()
	n := &namer{docker: &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, socket) }}}}
	var list []dockerNetwork
	if err := n.getOf(t.Context(), os.Getpid(), "/networks", &list); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	err := n.getOf(t.Context(), 1, "/networks", &list)
	if err == nil || !strings.Contains(err.Error(), "not the dockerd") {
		t.Errorf("%v", err)
	}
}

// TestAnEndpointThatDockerForgets is taken away later where the daemon hangs as Docker asks for it: Docker asks once.
func TestAnEndpointThatDockerForgets(t *testing.T) {
	dir, f := t.TempDir(), newFake()
	d := plugged(t, f, dir, network.DriverBridge)
	var answers atomic.Bool
	d.p.daemon = func(context.Context) (daemon, error) { return nil, api.ErrDaemonSilent }
	d.p.namer = newNamer(filepath.Join(dir, "none.sock"), func(context.Context) (daemon, error) {
		if !answers.Load() {
			return nil, api.ErrDaemonSilent
		}
		return f, nil
	}, d.p.log)
	for _, endpoint := range []string{endpointID, "another"} {
		f.attached[key(networkID, endpoint)] = network.Container{ID: endpoint}
	}
	d.says("Err", "NetworkDriver.DeleteEndpoint", "{"+ids+"}")
	if left := f.left(); !strings.Contains(left, endpointID) {
		t.Fatalf("left while the daemon hangs: %s", left)
	}
	answers.Store(true)
	d.p.namer.swept.Wait()
	if left := f.left(); left != key(networkID, "another") {
		t.Errorf("left: %s", left)
	}
}
