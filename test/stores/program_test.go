package stores

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/usernet/usernet/overlay/kv/kvtest"
	"github.com/usernet/usernet/overlay/kv/stores"
)

// TestEtcdProgram speaks to etcd as a daemon does: by the program that usernet carries.
func TestEtcdProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(filepath.Dir(self), "usernet-etcd")
	cmd := exec.Command("go", "build", "-o", program, "../../cmd/usernet-etcd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = os.Remove(program) })
	s := startEtcd(t, "http")
	s.start(t)
	target := s.target("etcd", stores.Open, etcdLease)
	target.Compact = s.compactEtcd
	kvtest.Run(t, target)
}
