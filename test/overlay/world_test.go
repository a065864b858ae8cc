package overlay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// storeHost is the address of the host that stores run on.
const storeHost = "192.0.2.4"

// A store is what hosts are joined by: a server on host 4, or none.
type store struct {
	name  string
	flags func(w *world) []string // of serve
	start func(w *world)          // starts the server on host 4, and waits until it answers; nil: there is none
}

// stores are all that the table of tests goes over.
var stores = []store{
	{"etcd", func(*world) []string { return []string{"--cluster-store", "etcd://" + storeHost + ":2379"} },
		(*world).startEtcd},
	{"zookeeper", func(*world) []string { return []string{"--cluster-store", "zk://" + storeHost + ":2181"} },
		(*world).startZooKeeper},
	{"consul", func(*world) []string { return []string{"--cluster-store", "consul://" + storeHost + ":8500"} },
		(*world).startConsul},
	{"gossip", (*world).gossipFlags, nil},
}

// A world is some hosts and a store, for the length of a test.
type world struct {
	t      testing.TB
	store  store
	dir    string // of the store
	server *exec.Cmd
	hosts  []*host // 1, 2, 3
}

// newWorld starts a store and n hosts' daemons.
func newWorld(t testing.TB, s store, n int) *world {
	t.Helper()
	w := newStore(t, s)
	for i := range n {
		w.hosts = append(w.hosts, newHost(t, i+1))
	}
	for _, h := range w.hosts {
		h.launch(s.flags(w)...)
	}
	for _, h := range w.hosts {
		h.answers()
	}
	return w
}

// newStore starts only the store.
func newStore(t testing.TB, s store) *world {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "uo-store-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: s, dir: dir}
	t.Cleanup(func() {
		w.kill()
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("the store's log:\n%s", tail(string(text), 40))
		}
		_ = os.RemoveAll(dir)
	})
	if s.start != nil {
		s.start(w)
	}
	return w
}

// eachStore runs a test with every store.
func eachStore(t *testing.T, f func(t *testing.T, s store)) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) { f(t, s) })
	}
}

// ofStores runs a test with some of the stores: with one that has a server and with gossip, where stores among each
// other make no difference.
func ofStores(t *testing.T, f func(t *testing.T, s store), names ...string) {
	for _, s := range stores {
		if slices.Contains(names, s.name) {
			t.Run(s.name, func(t *testing.T) { f(t, s) })
		}
	}
}

// eachServer runs a test with every store that has a server.
func eachServer(t *testing.T, f func(t *testing.T, s store)) {
	for _, s := range stores {
		if s.start != nil {
			t.Run(s.name, func(t *testing.T) { f(t, s) })
		}
	}
}

// each runs f for all hosts.
func (w *world) each(f func(h *host)) {
	for _, h := range w.hosts {
		f(h)
	}
}

// serve starts the store's server in host 4's namespace.
func (w *world) serve(name string, args ...string) {
	w.t.Helper()
	log, err := os.OpenFile(filepath.Join(w.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	w.server = exec.Command("nsenter", append([]string{"--net=/run/netns/xh-h4", name}, args...)...)
	w.server.Stdout, w.server.Stderr, w.server.Dir = log, log, w.dir
	w.server.Env = append(os.Environ(), "JVMFLAGS=-Xmx256m", "ZOO_LOG_DIR="+w.dir)
	w.server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := w.server.Start(); err != nil {
		w.t.Fatal(err)
	}
}

// kill kills the store's server, with what it started.
func (w *world) kill() {
	if w.server == nil {
		return
	}
	_ = syscall.Kill(-w.server.Process.Pid, syscall.SIGKILL)
	_ = w.server.Wait()
	w.server = nil
}

// restart starts the store's server again, on the data that it had.
func (w *world) restart() {
	w.t.Helper()
	w.store.start(w)
}

// answersHTTP waits until a page on host 4 has words in it.
func (w *world) answersHTTP(port, path, words string) {
	w.t.Helper()
	eventually(w.t, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "nsenter", "--net=/run/netns/xh-h4", "curl", "-sS",
			"http://"+net.JoinHostPort(storeHost, port)+path).CombinedOutput()
		if err != nil || !strings.Contains(string(out), words) {
			return fmt.Errorf("the store does not answer: %v %s", err, out)
		}
		return nil
	})
}

func (w *world) startEtcd() { w.etcd() }

// etcd starts etcd, with more flags.
func (w *world) etcd(flags ...string) {
	w.t.Helper()
	client, peer := "http://"+storeHost+":2379", "http://"+storeHost+":2380"
	w.serve("etcd", append([]string{"--name", "s1", "--data-dir", filepath.Join(w.dir, "etcd"), "--listen-client-urls",
		client, "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "s1=" + peer}, flags...)...)
	w.answersHTTP("2379", "/health", `"true"`)
}

func (w *world) startZooKeeper() {
	w.t.Helper()
	conf := filepath.Join(w.dir, "zoo.cfg")
	text := "tickTime=1000\ndataDir=" + w.dir + "/zk\nclientPort=2181\nclientPortAddress=" + storeHost +
		"\nadmin.enableServer=false\n4lw.commands.whitelist=ruok,stat\n"
	if err := errors.Join(os.MkdirAll(filepath.Join(w.dir, "zk"), 0o700), os.WriteFile(conf, []byte(text),
		0o600)); err != nil {
		w.t.Fatal(err)
	}
	w.serve("/usr/share/zookeeper/bin/zkServer.sh", "start-foreground", conf)
	eventually(w.t, func() error {
		out, err := exec.Command("nsenter", "--net=/run/netns/xh-h4", "bash", "-c",
			"exec 3<>/dev/tcp/"+storeHost+"/2181; echo ruok >&3; timeout 2 cat <&3").CombinedOutput()
		if !strings.Contains(string(out), "imok") {
			return fmt.Errorf("ZooKeeper does not answer: %v %s", err, out)
		}
		return nil
	})
}

func (w *world) startConsul() {
	w.t.Helper()
	consul := os.Getenv("USERNET_CONSUL")
	if consul == "" {
		w.t.Fatal("USERNET_CONSUL names no Consul server: make overlay builds one")
	}
	w.serve(consul, "agent", "-server", "-bootstrap", "-bind", storeHost, "-client", storeHost, "-data-dir",
		filepath.Join(w.dir, "consul"), "-log-level", "warn")
	w.answersHTTP("8500", "/v1/status/leader", ":")
}

// gossipFlags joins by host 1 and 2.
func (w *world) gossipFlags() []string {
	key := filepath.Join(w.dir, "key")
	if _, err := os.Stat(key); errors.Is(err, os.ErrNotExist) {
		out, err := exec.Command(usernet, "cluster", "key").Output()
		if err != nil {
			w.t.Fatalf("usernet cluster key: %v", err)
		}
		// Each host's user has to read it; the directory is for all hosts here.
		if err := errors.Join(os.WriteFile(key, out, 0o644), os.Chmod(w.dir, 0o755)); err != nil {
			w.t.Fatal(err)
		}
	}
	return []string{"--cluster-join", "192.0.2.1,192.0.2.2", "--cluster-key", key}
}
