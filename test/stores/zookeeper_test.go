package stores

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/kvtest"
	"github.com/usernet/usernet/overlay/kv/zookeeper"
)

// zooLease is two ticks of the tests' servers: the shortest session.
const zooLease = 2 * time.Second

func openZooKeeper(l kv.Location) (kv.Store, error) { return zookeeper.New(l) }

// startZooKeeper starts one server. config are further lines of zoo.cfg.
func startZooKeeper(t *testing.T, config ...string) *server {
	t.Helper()
	s := newServer(t, "ZooKeeper")
	file := filepath.Join(s.dir, "zoo.cfg")
	lines := append([]string{
		"tickTime=1000", "dataDir=" + filepath.Join(s.dir, "data"), "clientPortAddress=127.0.0.1", fmt.Sprintf("clientPort=%d", s.port),
		"admin.enableServer=false", "4lw.commands.whitelist=ruok", "",
	}, config...)
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.command = func() *exec.Cmd {
		return exec.Command("java", "-Xmx256m", "-Dlog4j.rootLogger=WARN", "-cp", "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar",
			"org.apache.zookeeper.server.quorum.QuorumPeerMain", file)
	}
	s.ready = func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err != nil {
			return err
		}
		defer conn.Close()
		deadline, _ := ctx.Deadline()
		answer := make([]byte, 4)
		err = conn.SetDeadline(deadline)
		if err == nil {
			_, err = conn.Write([]byte("ruok"))
		}
		if err == nil {
			_, err = conn.Read(answer)
		}
		if err == nil && string(answer) != "imok" {
			err = fmt.Errorf("it says %q", answer)
		}
		return err
	}
	return s
}

func TestZooKeeper(t *testing.T) {
	s := startZooKeeper(t)
	s.start(t)
	kvtest.Run(t, s.target("zk", openZooKeeper, zooLease))
}
