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
		"tickTime=1000", "dataDir=" + filepath.Join(s.dir, "data"), "clientPortAddress=127.0.0.1",
		fmt.Sprintf("clientPort=%d", s.port),
		"admin.enableServer=false", "4lw.commands.whitelist=ruok", "",
	}, config...)
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.command = func() *exec.Cmd {
		// Debian's archive names of Netty only what a server without TLS needs.
		jars := strings.Join([]string{"zookeeper.jar", "netty-codec.jar", "netty-resolver.jar", "netty-tcnative.jar",
			"slf4j-simple.jar"},
			":/usr/share/java/")
		return exec.Command("java", "-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp",
			"/usr/share/java/"+jars,
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
