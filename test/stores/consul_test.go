package stores

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/consul"
	"github.com/usernet/usernet/overlay/kv/kvtest"
)

// consulLease is the shortest session that Consul makes.
const consulLease = 10 * time.Second

func openConsul(l kv.Location) (kv.Store, error) { return consul.New(l) }

// startConsul starts one server. config is JSON.
func startConsul(t *testing.T, config ...string) *server {
	t.Helper()
	s := newServer(t, "consul")
	serf, raft, grpc := freePort(t), freePort(t), freePort(t)
	ports := fmt.Sprintf(`{"ports": {"http": %d, "server": %d, "serf_lan": %d, "serf_wan": -1, "dns": -1, "grpc": %d, "https": -1, "grpc_tls": -1}}`,
		s.port, raft, serf, grpc)
	s.command = func() *exec.Cmd {
		args := []string{
			"agent", "-server", "-bootstrap", "-bind", "127.0.0.1", "-client", "127.0.0.1", "-node", "s1",
			"-data-dir", filepath.Join(s.dir, "data"), "-hcl", ports, "-hcl", `{"performance": {"raft_multiplier": 3}, "disable_update_check": true}`,
		}
		for _, c := range config {
			args = append(args, "-hcl", c)
		}
		return exec.Command(os.Getenv("USERNET_CONSUL"), args...)
	}
	s.ready = func(ctx context.Context) error {
		out, err := output(ctx, nil, "curl", "-sS", s.url("http")+"/v1/status/leader")
		if err == nil && !strings.Contains(out, ":") {
			err = fmt.Errorf("no leader: %s", out)
		}
		if err == nil {
			// A leader that has just been elected may still refuse writes.
			out, err = output(ctx, nil, "curl", "-sSf", "-X", "PUT", s.url("http")+"/v1/kv/ready")
		}
		if err == nil && strings.TrimSpace(out) != "true" {
			err = fmt.Errorf("not written: %s", out)
		}
		return err
	}
	return s
}

func TestConsul(t *testing.T) {
	s := startConsul(t)
	s.start(t)
	kvtest.Run(t, s.target("consul", openConsul, consulLease))
}
