package stores

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const childVariable = "USERNET_TEST_STORE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	err := Serve(nil)
	name, _ := os.ReadFile("/proc/self/comm")
	fmt.Printf("%s%v\n", name, err)
}

// TestTheProgramHasAName executes one as openEtcd does, and has it find that nobody speaks to it.
func TestTheProgramHasAName(t *testing.T) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd := &exec.Cmd{
		Path:       fmt.Sprintf("/proc/self/fd/%d", controlFD+1),
		Args:       []string{etcdName},
		Env:        []string{childVariable + "=1"},
		ExtraFiles: []*os.File{self, self},
	}
	out, err := cmd.CombinedOutput()
	if want := etcdName + "\nit is started by usernet only\n"; err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%q, %v, want %q", out, err, want)
	}
}
