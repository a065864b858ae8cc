package stores

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/etcd"
	"github.com/usernet/usernet/overlay/kv/kvtest"
)

// etcdLease is the shortest lease of etcd's: one and a half of its election timeouts, rounded up.
const etcdLease = 2 * time.Second

func openEtcd(l kv.Location) (kv.Store, error) { return etcd.New(l) }

// startEtcd starts one member.
func startEtcd(t *testing.T, scheme string, flags ...string) *server {
	t.Helper()
	s := newServer(t, "etcd")
	peer := fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	client := fmt.Sprintf("%s://127.0.0.1:%d", scheme, s.port)
	s.command = func() *exec.Cmd {
		return exec.Command("etcd", append([]string{
			"--name", "s1", "--data-dir", filepath.Join(s.dir, "data"), "--listen-client-urls", client,
			"--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "s1=" + peer,
			// A test's disk is shared, and slow.
			"--heartbeat-interval", "100", "--election-timeout", "1000",
		}, flags...)...)
	}
	s.ready = func(ctx context.Context) error {
		_, err := s.etcdctl(ctx, nil, "endpoint", "health")
		return err
	}
	return s
}

func (s *server) etcdctl(ctx context.Context, flags []string, args ...string) (string, error) {
	flags = append([]string{fmt.Sprintf("--endpoints=127.0.0.1:%d", s.port)}, flags...)
	return output(ctx, []string{"ETCDCTL_API=3"}, "etcdctl", append(flags, args...)...)
}

func (s *server) compactEtcd(t *testing.T) {
	t.Helper()
	status, err := s.etcdctl(t.Context(), nil, "endpoint", "status", "--write-out=json")
	if err != nil {
		t.Fatal(err)
	}
	revision := regexp.MustCompile(`"revision":(\d+)`).FindStringSubmatch(status)
	if revision == nil {
		t.Fatalf("no revision in %s", status)
	}
	if _, err := s.etcdctl(t.Context(), nil, "compact", revision[1]); err != nil {
		t.Fatal(err)
	}
}

func TestEtcd(t *testing.T) {
	s := startEtcd(t, "http")
	s.start(t)
	target := s.target("etcd", openEtcd, etcdLease)
	target.Compact = s.compactEtcd
	kvtest.Run(t, target)
}
