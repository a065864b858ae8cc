package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The stages of the test binary, in the environment variable that says which one a process is.
const (
	stageVariable = "USERNET_TEST_STAGE"
	stageRoot     = "root" // root of the world: sets it up, and changes it on request
	stageUser     = "user" // an ordinary user in the world: runs the tests
)

// The world's addresses (RFC 5737 and RFC 3849: for documentation, so nobody's).
const (
	host4, host6   = "192.0.2.1", "2001:db8::1"
	peer4, peer6   = "192.0.2.100", "2001:db8::100"
	resolver       = "192.0.2.53"
	nobody4        = "192.0.2.200"  // on the cable, but no machine has it
	unreachable4   = "198.51.100.9" // the peer answers: unreachable
	unreachable6   = "2001:db8:1::9"
	blackHole4     = "203.0.113.9" // the peer swallows
	userID         = 1000          // of stageUser; no user of the world has it otherwise
	firstTestPort  = 20000         // ports for tests are handed out from here, below the ephemeral range
	resolverPort   = 53
	controlTimeout = time.Minute
)

// startStage runs this test binary again in new namespaces and returns its exit status.
func startStage(stage string, env ...string) (int, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), append(env, stageVariable+"="+stage)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL}
	if stage == stageRoot {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET | syscall.CLONE_NEWNS
		if err := startRoot(cmd); err != nil {
			return 1, fmt.Errorf("the world's namespaces could not be made: %w (see docs/troubleshooting.md)", err)
		}
		return run(cmd)
	}
	// An ordinary user: exec drops the capabilities of one who is not root.
	cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = userMaps(userID), userMaps(userID)
	cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 1, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	cmd.ExtraFiles = []*os.File{theirs}
	go serveControl(ours)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("the tests could not be started: %w", err)
	}
	return run(cmd)
}

// run waits for a stage.
func run(cmd *exec.Cmd) (int, error) {
	signal.Ignore(os.Interrupt) // the tests get it as well, and end
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// worldScript sets up the world. $PEER is the process that holds the peer's network namespace.
const worldScript = `
set -e
ip link set lo up
ip link add lan0 type veth peer name lan0 netns $PEER
ip addr add 192.0.2.1/24 dev lan0
ip addr add 192.0.2.53/24 dev lan0
ip addr add 2001:db8::1/64 dev lan0 nodad
ip link set lan0 up
echo "0 0" > /proc/sys/net/ipv4/ping_group_range
echo 53 > /proc/sys/net/ipv4/ip_unprivileged_port_start
nsenter --net --target $PEER sh -e -c '
	ip link set lo up
	ip addr add 192.0.2.100/24 dev lan0
	ip addr add 2001:db8::100/64 dev lan0 nodad
	ip link set lan0 up
	ip route add unreachable 198.51.100.0/24
	ip route add unreachable 2001:db8:1::/48
	ip route add blackhole 203.0.113.0/24
	echo 1 > /proc/sys/net/ipv4/ip_forward
	echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
	echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
	echo 0 > /proc/sys/net/ipv6/icmp/ratelimit
'
ip route add default via 192.0.2.100
ip route add default via 2001:db8::100
ping -q -c 1 -W 5 192.0.2.100 >/dev/null
mount --bind "$BIN/resolv.conf" "$(readlink -f /etc/resolv.conf)"
`

// buildWorld is the second stage.
func buildWorld() (int, error) {
	awaitIDs()
	// What tests leave behind becomes this process's child, so that it can be ended.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, err
	}
	defer endChildren()
	peer := exec.Command("sleep", "infinity")
	peer.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := peer.Start(); err != nil {
		return 1, fmt.Errorf("network namespace of the peer: %w", err)
	}
	bin := os.Getenv("USERNET_TEST_BIN")
	resolv := "nameserver " + resolver + "\nsearch example.test\n"
	if err := os.WriteFile(filepath.Join(bin, "resolv.conf"), []byte(resolv), 0o644); err != nil {
		return 1, err
	}
	peerPid = peer.Process.Pid
	if out, err := rootCommand(worldScript+subordinateScript, 0).CombinedOutput(); err != nil {
		return 1, fmt.Errorf("setting up the tests' network: %w\n%s", err, out)
	}
	if err := grantTools(bin); err != nil {
		return 1, err
	}
	return startStage(stageUser)
}

var peerPid int // in stageRoot

// rootCommand is a shell script run by root of the world, there or at the peer.
func rootCommand(script string, pid int) *exec.Cmd {
	cmd := exec.Command("sh", "-c", script)
	if pid != 0 {
		cmd = exec.Command("nsenter", "--net", "--target", strconv.Itoa(pid), "sh", "-c", script)
	}
	cmd.Env = append(os.Environ(), fmt.Sprint("PEER=", peerPid), "BIN="+os.Getenv("USERNET_TEST_BIN"))
	return cmd
}

// A controlRequest asks stageRoot to run a script.
type controlRequest struct {
	Script string
	Peer   bool
}

type controlReply struct {
	Output string
	Error  string
}

func serveControl(conn io.ReadWriter) {
	requests, replies := json.NewDecoder(conn), json.NewEncoder(conn)
	for {
		var request controlRequest
		if requests.Decode(&request) != nil {
			return
		}
		pid := 0
		if request.Peer {
			pid = peerPid
		}
		out, err := rootCommand(request.Script, pid).CombinedOutput()
		reply := controlReply{Output: strings.TrimSpace(string(out))}
		if err != nil {
			reply.Error = err.Error()
		}
		if replies.Encode(reply) != nil {
			return
		}
	}
}

// endChildren kills every descendant of this process.
func endChildren() {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		tasks, _ := filepath.Glob("/proc/self/task/*/children")
		count := 0
		for _, task := range tasks {
			list, _ := os.ReadFile(task)
			for _, field := range strings.Fields(string(list)) {
				if pid, err := strconv.Atoi(field); err == nil {
					count++
					syscall.Kill(pid, syscall.SIGKILL)
					syscall.Wait4(pid, nil, 0, nil)
				}
			}
		}
		if count == 0 {
			return
		}
	}
}

// control is stageUser's end of the connection to root.
var control struct {
	sync.Mutex // one request at a time
	conn       io.ReadWriter
	replies    *json.Decoder
}

// enterWorld is the third stage's start.
func enterWorld() error {
	conn := os.NewFile(3, "control")
	unix.CloseOnExec(3)
	control.conn, control.replies = conn, json.NewDecoder(conn)
	bin := os.Getenv("USERNET_TEST_BIN")
	usernet, daemonProgram, helper = filepath.Join(bin, "usernet"), filepath.Join(bin, "daemon"),
		filepath.Join(bin, "helper")
	raceBuild = os.Getenv("USERNET_TEST_BUILT_RACE") == "true"
	for _, name := range []string{stageVariable, "USERNET_TEST_BIN", "USERNET_HOST", "DOCKER_HOST", "XDG_STATE_HOME"} {
		os.Unsetenv(name)
	}
	os.Setenv("PATH", bin+":"+filepath.Join(bin, "uidmap")+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	return startResolver()
}

// asRoot has a script run by root of the world, and returns what it printed.
func asRoot(t testing.TB, script string) string {
	t.Helper()
	return controlled(t, controlRequest{Script: script})
}

// atPeer has a script run on the peer.
func atPeer(t testing.TB, script string) string {
	t.Helper()
	return controlled(t, controlRequest{Script: script, Peer: true})
}

func controlled(t testing.TB, request controlRequest) string {
	t.Helper()
	control.Lock()
	defer control.Unlock()
	var reply controlReply
	if err := json.NewEncoder(control.conn).Encode(request); err != nil {
		t.Fatalf("asking root: %v", err)
	}
	if err := control.replies.Decode(&reply); err != nil {
		t.Fatalf("asking root: %v", err)
	}
	if reply.Error != "" {
		t.Fatalf("%s: %s\n%s", request.Script, reply.Error, reply.Output)
	}
	return reply.Output
}

// startAtPeer starts a program on the peer that runs until the test ends.
func startAtPeer(t testing.TB, command string) {
	t.Helper()
	pid := atPeer(t, command+" >/dev/null 2>&1 & echo $!")
	t.Cleanup(func() { asRoot(t, "kill "+pid+" || true") })
}

var nextPort = struct {
	sync.Mutex
	port int
}{port: firstTestPort}

// freePort returns a host port that no other test uses.
func freePort() int {
	nextPort.Lock()
	defer nextPort.Unlock()
	nextPort.port += 10 // so that a test may use the next few as well
	return nextPort.port
}

// listen starts a TCP server in the world (on the host) that calls serve for each connection.
func listen(t testing.TB, address string, serve func(*net.TCPConn)) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
}

// echo sends everything back and then closes.
func echo(c *net.TCPConn) {
	defer c.Close()
	io.Copy(c, c)
}

// listenUDP starts a UDP server in the world that answers each datagram with itself.
func listenUDP(t testing.TB, address string) {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		datagram := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(datagram)
			if err != nil {
				return
			}
			c.WriteTo(datagram[:n], from)
		}
	}()
}
