package test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// needed are the programs that the tests run, with the Debian package that has each.
var needed = []struct{ program, pkg string }{
	{"busybox", "busybox-static"}, {"curl", "curl"}, {"dig", "dnsutils"}, {"docker", "docker.io"},
	{"ip", "iproute2"}, {"git", "git"}, {"make", "make"},
	{"iperf3", "iperf3"}, {"nsenter", "util-linux"}, {"ping", "iputils-ping"}, {"socat", "socat"},
	{"traceroute", "traceroute"}, {"dnsmasq", "dnsmasq-base"}, {"musl-gcc", "musl-tools"},
	{"newuidmap", "uidmap"}, {"tshark", "tshark"}, {"capinfos", "wireshark-common"}, {"tcpdump", "tcpdump"},
	{"promtool", "prometheus"}, {"tmux", "tmux"},
	{"chromium", "chromium"}, {"chromedriver", "chromium-driver"}, {"setpriv", "util-linux"},
}

// Set in TestMain for all tests.
var (
	usernet       string // the binary under test
	daemonProgram string // the same for the daemon
	helper        string // the helper program, static
	raceBuild     bool   // daemonProgram has the race detector
)

func TestMain(m *testing.M) {
	flag.Parse() // for testing.Short
	stage := os.Getenv(stageVariable)
	code, err := 1, error(nil)
	switch stage {
	case "":
		code, err = outside()
	case stageRoot:
		code, err = buildWorld()
	case stageUser:
		if err = enterWorld(); err == nil {
			if testing.Short() {
				err = flag.Set("test.run", smokePattern())
			}
			code = m.Run()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "test:", err)
		code = 1
	}
	os.Exit(code)
}

// outside is the first stage: it checks the machine, builds the programs and starts the next stage.
func outside() (int, error) {
	if os.Geteuid() == 0 {
		return 1, errors.New("the end-to-end tests show that usernet works without root, so they do not run as root;\n" +
			"run `make e2e` or `make test`, which switch to an ordinary user, or: runuser -u USER -- go test ./test")
	}
	if err := checkMachine(); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("/tmp", "usernet-test-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	race := raceEnabled || os.Getenv("USERNET_TEST_RACE") == "1"
	if err := build(filepath.Join(dir, "helper"), "./test/helper", false); err != nil {
		return 1, err
	}
	// As make build does, with the program of sandboxes inside. Commands start by the thousand, and do one thing after
	// the other: the race detector is for the daemon, which then also shows that usernet works without that program.
	if err := buildWhole(filepath.Join(dir, "usernet")); err != nil {
		return 1, err
	}
	// Here, since modules cannot be downloaded from within the network of the tests.
	if err := buildCNITools(dir); err != nil {
		return 1, err
	}
	// Faults can be injected into the daemon, where USERNET_FAULTS says so (package internal/faults).
	if race {
		err = build(filepath.Join(dir, "daemon"), "./cmd/usernet", true, "-tags", "faults")
	} else {
		err = buildWhole(filepath.Join(dir, "daemon"), "-tags", "faults")
	}
	if err != nil {
		return 1, err
	}
	return startStage(stageRoot, "USERNET_TEST_BIN="+dir, fmt.Sprint("USERNET_TEST_BUILT_RACE=", race))
}

func checkMachine() error {
	var missing []string
	for _, n := range needed {
		if _, err := exec.LookPath(n.program); err != nil {
			missing = append(missing, n.pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("programs are missing; as root: apt-get install %s", strings.Join(missing, " "))
	}
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w; as root: chmod 0666 /dev/net/tun", err)
	}
	return tun.Close()
}

// buildWhole makes usernet as make build does.
func buildWhole(path string, flags ...string) error {
	if out, err := exec.Command("../scripts/build.sh", append([]string{path}, flags...)...).CombinedOutput(); err !=
		nil {
		return fmt.Errorf("scripts/build.sh: %w\n%s", err, out)
	}
	return nil
}

// buildCNITools makes the programs of the module tools/cni.
func buildCNITools(dir string) error {
	cmd := exec.Command("go", "build", "-o", dir, "github.com/containernetworking/cni/cnitool", "./plugintest")
	cmd.Dir, cmd.Env = "tools/cni", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build in tools/cni: %w\n%s", err, out)
	}
	return nil
}

// build makes a program of this module.
func build(path, pkg string, race bool, flags ...string) error {
	args := append([]string{"build", "-o", path}, flags...)
	cgo := "CGO_ENABLED=0"
	if race {
		args = append(args, "-race")
		cgo = "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}
