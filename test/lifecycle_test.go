package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestNetworksSurviveARestart(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "--subnet", "10.99.0.0/24", "--gateway", "10.99.0.7", "--label", "a=b", "--ipv6", "kept")
	d.ok("network", "create", "gone")
	d.ok("network", "rm", "gone")
	before := d.ok("network", "inspect", "kept")
	if code := d.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	d.start()
	if after := d.ok("network", "inspect", "kept"); after != before {
		t.Errorf("before the restart:\n%s\nafter:\n%s", before, after)
	}
	if names := d.names("network", "ls"); !slices.Equal(names, []string{"bridge", "host", "kept", "none"}) {
		t.Errorf("networks: %v", names)
	}
	d.idle("box", "--network", "kept")
	d.says(" 0% packet loss", "box", "ping", "-c1", "-W5", "10.99.0.7")
}

func TestContainersSurviveACrashOfTheDaemon(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	d.ok("network", "create", "mynet")
	d.serve("web", []string{"--network", "mynet", "-p", fmt.Sprintf("%d:80", port)}, helper, "tcpserve", ":80", "addr")
	d.idle("client", "--network", "mynet")
	address := d.address("web")
	if code := d.stop(syscall.SIGKILL); code != -1 {
		t.Errorf("killed, the daemon ended with %d", code)
	}
	d.start()
	if got := d.address("web"); got != address {
		t.Errorf("web had %s, has %s", address, got)
	}
	d.says("ok", "client", helper, "tcpdial", "web:80")
	if out := atPeer(t, fmt.Sprintf("%s tcpdial %s:%d", helper, host4, port)); !sourceIs(out, peer4) {
		t.Errorf("the published port after the crash: %s", out)
	}
	d.says(" 0% packet loss", "client", "ping", "-c1", "-W5", peer4)
}

func TestKilledContainerFreesItsEndpoint(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	d.idle("victim", "-p", fmt.Sprintf("%d:80", port))
	address := d.address("victim")
	if err := syscall.Kill(d.pid("victim"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if out := d.ok("ps", "-a"); !strings.Contains(out, "Exited (137)") {
			return fmt.Errorf("ps: %s", out)
		}
		return nil
	})
	d.idle("next", "-p", fmt.Sprintf("%d:80", port))
	if got := d.address("next"); got != address {
		t.Errorf("the next container has %s, not %s", got, address)
	}
}

func TestKilledMonitorEndsItsContainer(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("box")
	for _, line := range d.processes() {
		if pid, command, _ := strings.Cut(line, " "); strings.Contains(command, "monitor") {
			if name := strings.TrimSpace(readFile(t, "/proc/"+pid+"/comm")); name != "usernet-monitor" {
				t.Errorf("ps calls the monitor %q", name)
			}
			asRoot(t, "kill -9 "+pid)
		}
	}
	eventually(t, func() error {
		if out := d.ok("ps", "-q"); out != "" {
			return fmt.Errorf("still running: %s", out)
		}
		return nil
	})
}

func TestSecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	r := d.try("serve", "--socket", filepath.Join(d.dir, "other.sock"), "--state-dir", filepath.Join(d.dir, "state"))
	if r.code == 0 || !strings.Contains(r.stderr, filepath.Join(d.dir, "state")) {
		t.Errorf("a second daemon on the same state: %v", r)
	}
	r = d.try("serve", "--socket", d.socket, "--state-dir", filepath.Join(d.dir, "state2"))
	if r.code == 0 || !strings.Contains(r.stderr, d.socket) {
		t.Errorf("a second daemon on the same socket: %v", r)
	}
	d.ok("network", "ls") // the first one goes on
}

func TestDaemonSaysThatItIsReady(t *testing.T) {
	d := newDaemon(t, "--log-format", "json")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(d.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(d.dir, "notify"))
	d.start()
	message := make([]byte, 1000)
	n, err := notify.Read(message)
	if err != nil || !strings.Contains(string(message[:n]), "READY=1") {
		t.Errorf("sd_notify got %q, %v", message[:n], err)
	}
	log := strings.TrimSpace(d.logText())
	if strings.Count(log, d.socket) != 1 || !strings.HasPrefix(log, "{") {
		t.Errorf("the log has not one JSON line about the socket:\n%s", log)
	}
	if info, err := os.Stat(d.socket); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others may use the socket: %v, %v", info.Mode(), err)
	}
}

func TestDaemonEndsOnInterrupt(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	if code := d.stop(syscall.SIGINT); code != 0 {
		t.Errorf("status %d", code)
	}
}

func TestRunStartsADaemon(t *testing.T) {
	t.Parallel()
	d := newDaemon(t) // is not started: its directories and its clean end are what is wanted
	socket := filepath.Join(d.dir, "run", "usernet", "usernet.sock")
	environ := []string{"-u", "USERNET_HOST", "-u", "DOCKER_HOST"}
	bare := func(args ...string) result {
		return d.command("env", append(append(environ, usernet), args...)...)
	}
	if r := bare("run", "--rm", "--", "sh", "-c", "echo it runs"); r.code != 0 || r.stdout != "it runs\n" {
		t.Errorf("without a daemon: %v", r)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("no daemon was started: %v", err)
	}
	if r := bare("ps"); r.code != 0 {
		t.Errorf("the started daemon does not answer: %v", r)
	}
	// The daemon is not dumpable, so that its environment does not tell whose it is; its log does.
	log := readFile(t, filepath.Join(d.dir, "home", "usernet", "daemon.log"))
	pid := regexp.MustCompile(`pid=(\d+)`).FindStringSubmatch(log)
	if pid == nil {
		t.Fatalf("the daemon's log has no pid: %s", log)
	}
	asRoot(t, "kill "+pid[1])
	eventually(t, func() error {
		if r := bare("ps"); r.code == 0 {
			return errors.New("the daemon still answers")
		}
		return nil
	})
}

func TestDeadDaemon(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.fails("usernet serve", "ps")
	if r := d.try("rm", "one", "two", "three"); r.code != 1 || strings.Count(r.stderr, "no usernet daemon") != 1 {
		t.Errorf("it is to say once that no daemon answers: %v", r)
	}
	d.fails(d.socket, "network", "ls")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.try("check")
	if r.code != 0 || !strings.Contains(r.stdout, "/dev/net/tun") {
		t.Errorf("%v", r)
	}
	r = d.command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
		`mount --rbind / /mnt && exec chroot /mnt "$0" check`, usernet)
	if r.code != 1 || !strings.Contains(r.stdout, "in a chroot nobody can make them") {
		t.Errorf("in a chroot: %v", r)
	}
}
