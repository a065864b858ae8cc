package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// options are what the user may choose.
type options struct {
	seconds int           // of each measurement
	runs    int           // measurements of each number
	idle    time.Duration // how long the idle daemon is watched
	json    string        // file for the results
	report  string        // file for the tables
	svg     string        // file for the plot
	only    string        // regular expression of cells
	full    bool          // 500 containers
	usernet string        // binary; built where empty
	tools   string        // names, separated by commas; all where empty
	peers   string        // directory with binaries of the peers
	others  float64       // percentage of the processors that others may use

	syscalls bool // count system calls instead of measuring rates
}

func main() {
	var o options
	flag.IntVar(&o.seconds, "seconds", 3, "length of each measurement")
	flag.IntVar(&o.runs, "runs", 3, "measurements of which the median counts")
	flag.DurationVar(&o.idle, "idle", 10*time.Second, "how long the idle daemon is watched")
	flag.StringVar(&o.json, "json", "", "write the results to `FILE`")
	flag.StringVar(&o.report, "markdown", "", "write the tables to `FILE`")
	flag.StringVar(&o.svg, "svg", "", "write a plot of TCP throughput to `FILE`")
	flag.StringVar(
		&o.only,
		"only",
		"",
		"measure only the cells that match `REGEXP`, such as 'TCP.*1500' or 'DNS|Scale'",
	)
	flag.BoolVar(&o.full, "full", false, "500 containers in the cells of scale")
	flag.StringVar(&o.tools, "tools", "", "measure only these `NAMES`, such as usernet,pasta")
	flag.StringVar(
		&o.peers,
		"peers",
		"",
		"take the peers' binaries from `DIR`, or from usr/bin in it, where they are there",
	)
	flag.Float64Var(
		&o.others,
		"others",
		10,
		"print no table where other programs used more than this `PERCENTAGE` of the processors",
	)
	flag.BoolVar(
		&o.syscalls,
		"syscalls",
		false,
		"count each tool's system calls by strace, for what the cells' processor time is counted for; a busy machine does not matter",
	)
	quick := flag.Bool("quick", false, "one run of a second each")
	flag.StringVar(&o.usernet, "usernet", "", "measure this `BINARY` instead of building one")
	if len(os.Args) > 1 && os.Args[1] == generatorCommand {
		if err := generate(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if *quick {
		o.seconds, o.runs, o.idle = 1, 1, 2*time.Second
	}
	stage := outside
	if os.Getenv(insideVariable) != "" {
		stage = inside
	}
	if err := stage(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const insideVariable = "USERNET_BENCH_DIR"

// worldScript makes the network in which everything is measured, and goes on as an ordinary user.
// pasta needs a device with a default route to copy its addresses from; no packet takes it.
const worldScript = `
set -e
ip link set lo up
ip addr add 192.0.2.1/32 dev lo
ip addr add 2001:db8::1/128 dev lo
echo "0 0" > /proc/sys/net/ipv4/ping_group_range
ip link add ext0 type dummy 2>/dev/null || { ip link add ext0 type veth peer name ext1; ip link set ext1 up; } # it needs a carrier
ip addr add 198.51.100.2/24 dev ext0
ip addr add 2001:db8:1::2/64 dev ext0 nodad
ip link set ext0 up
ip route add default via 198.51.100.1 dev ext0
ip route add default via 2001:db8:1::1 dev ext0
exec unshare --user --map-user=1000 --map-group=1000 $KEEP "$@"
`

// keepTracing lets strace look into tools that are not dumpable, as usernet's daemon is.
const keepTracing = "--keep-caps setpriv --inh-caps=-all,+sys_ptrace --ambient-caps=-all,+sys_ptrace"

// outside checks the machine, builds usernet and starts the bench again in its own network.
func outside(o options) error {
	if os.Geteuid() == 0 {
		return errors.New("run it as an ordinary user (make bench switches to one)")
	}
	for _, need := range [][2]string{
		{"iperf3", "iperf3"},
		{"ip", "iproute2"},
		{"unshare", "util-linux"},
		{"nsenter", "util-linux"},
		{"ping", "iputils-ping"},
	} {
		if _, err := exec.LookPath(need[0]); err != nil {
			return fmt.Errorf("%s is missing; as root: apt-get install %s", need[0], need[1])
		}
	}
	dir, err := os.MkdirTemp("/tmp", "unb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "usernet")
	if o.usernet != "" {
		if binary, err = filepath.Abs(o.usernet); err != nil {
			return err
		}
	} else {
		build := exec.Command("scripts/build.sh", binary, "-ldflags", "-s -w -X main.version="+os.Getenv("VERSION"))
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("scripts/build.sh: %w\n%s", err, out)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	signal.Ignore(os.Interrupt) // the inner stage ends, then we
	cmd := exec.Command("unshare", append([]string{"-Urn", "sh", "-c", worldScript, "sh", self}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), insideVariable+"="+dir, "USERNET_BENCH_BINARY="+binary)
	if o.syscalls {
		cmd.Env = append(cmd.Env, "KEEP="+keepTracing)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		os.RemoveAll(dir)
		os.Exit(exit.ExitCode()) // the inner stage has said why
	}
	return err
}

// inside measures and reports.
func inside(o options) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	if o.peers != "" {
		if err := preferPeers(o.peers, filepath.Join(os.Getenv(insideVariable), "peers")); err != nil {
			return err
		}
	}
	w := &world{dir: os.Getenv(insideVariable), binary: os.Getenv("USERNET_BENCH_BINARY"), options: o}
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupt
		w.close()
		os.Exit(130)
	}()
	defer w.close()
	r, err := w.measure()
	if err != nil {
		return err
	}
	return r.write(os.Stdout, o)
}
