package test

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestTenThousandConnectionsAtOnce(t *testing.T) {
	const count = 10000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < count+1000 {
		t.Fatalf("the hard limit on open files is %d; raise it to 20000 or more (ulimit -Hn, /etc/security/limits.conf)", limit.Max)
	}
	d := startDaemon(t, "--limit-memory", "1g") // the default's 128 MiB are buffers for some 2,700
	port := freePort()
	target := fmt.Sprintf("%s:%d", host4, port)
	server := exec.Command(helper, "tcpserve", target)
	startAndWaitFor(t, server, "listening\n")
	// By the gateway a connection takes one descriptor of the daemon's, and no container gets more than stays free.
	d.ok("network", "create", "-o", "usernet.bypass_outbound=false", "slow")
	boxes := []string{"one", "two"}
	const each = count / 2
	release := map[string]io.Closer{}
	clients := map[string]*exec.Cmd{}
	for _, name := range boxes {
		d.idle(name, "--network", "slow")
		client := exec.Command(usernet, "exec", "-i", name, helper, "tcpmany", target, fmt.Sprint(each), "wait")
		client.Env = d.environ()
		in, err := client.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		startAndWaitFor(t, client, fmt.Sprintf("open %d\nechoed %d\n", each, each))
		release[name], clients[name] = in, client
	}
	for _, name := range boxes {
		// With all of them open, new ones and other protocols work as before.
		d.says("ok", name, helper, "tcpdial", target)
		d.says(" 0% packet loss", name, "ping", "-c1", "-W30", peer4)
		if n := len(d.tcpFlows(name)); n < each {
			t.Errorf("flows lists %d of the %d of %s", n, each, name)
		}
	}
	for _, name := range boxes {
		release[name].Close()
		if err := clients[name].Wait(); err != nil {
			t.Errorf("the client in %s ended with %v", name, err)
		}
	}
	eventually(t, func() error {
		if n := len(d.tcpFlows("")); n > 0 {
			return fmt.Errorf("%d flows are left of closed connections", n)
		}
		return nil
	})
}

// startAndWaitFor starts a program and reads its output up to and including words. The program is
// killed when the test ends.
func startAndWaitFor(t testing.TB, cmd *exec.Cmd, words string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() && stderr.Len() > 0 {
			t.Logf("%s: %s", cmd, &stderr)
		}
	})
	got := make([]byte, len(words))
	if n, err := io.ReadFull(out, got); err != nil || string(got) != words {
		t.Fatalf("%s printed %q, %v; wanted %q\n%s", cmd, got[:n], err, words, &stderr)
	}
	go io.Copy(io.Discard, out)
}

func TestLargeTransfersArriveWhole(t *testing.T) {
	d := dual(t)
	port := freePort()
	size := "200000000"
	if raceBuild {
		size = "30000000"
	}
	startAtPeer(t, fmt.Sprintf("%s tcpserve :%d digest", helper, port))
	d.serve("server", []string{"--network", "dual", "-p", fmt.Sprintf("%d:80", port)}, helper, "tcpserve", ":80",
		"digest")
	for _, test := range []struct {
		name string
		send func() result
	}{
		{"container to another machine",
			func() result { return d.exec("box", helper, "tcpsend", fmt.Sprintf("%s:%d", peer4, port), size) }},
		{"container to another machine, IPv6",
			func() result { return d.exec("box", helper, "tcpsend", fmt.Sprintf("[%s]:%d", peer6, port), size) }},
		{"container to container", func() result { return d.exec("box", helper, "tcpsend", "server:80", size) }},
		{"host to container", func() result {
			return d.command(helper, "tcpsend", fmt.Sprintf("127.0.0.1:%d", port),
				size)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if r := test.send(); !strings.Contains(r.stdout, "same "+size) {
				t.Errorf("%v", r)
			}
		})
	}
}

// TestBlackHolesDoNotDelayOthers holds hundreds of dials that nobody answers.
func TestBlackHolesDoNotDelayOthers(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	listen(t, fmt.Sprintf("%s:%d", host4, port), func(c *net.TCPConn) { c.Close() })
	d.idle("greedy")
	d.idle("neighbour")
	// The shell's connections last until the container is removed.
	d.ok("exec", "greedy", "sh", "-c",
		fmt.Sprintf(`for i in $(seq 250); do %s tcpdial 203.0.113.$i:80 60s >/dev/null 2>&1 & done`, helper))
	eventually(t, func() error {
		if n := strings.Count(d.ok("exec", "greedy", "ps", "ax"), "tcpdial"); n < 200 {
			return fmt.Errorf("only %d dials run", n)
		}
		return nil
	})
	for _, name := range []string{"neighbour", "greedy"} {
		d.says("ok", name, helper, "tcpdial", fmt.Sprintf("%s:%d", host4, port), "5s")
	}
}

func TestIperf3(t *testing.T) {
	d := dual(t)
	d.container("server", []string{"--network", "dual"}, "iperf3", "-s")
	port := freePort()
	server := exec.Command("iperf3", "-s", "-p", fmt.Sprint(port), "--forceflush")
	startAndWaitFor(t, server, "-----")
	for _, args := range [][]string{
		{"-c", host4, "-p", fmt.Sprint(port)},
		{"-c", host4, "-p", fmt.Sprint(port), "-R"},
		{"-c", host6, "-p", fmt.Sprint(port), "-P", "4"},
		{"-c", "server"},
		{"-c", "server", "-6"},
		{"-c", host4, "-p", fmt.Sprint(port), "-u", "-b", "20M"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			d := d.in(t)
			d.says("iperf Done.", "box", append([]string{"iperf3", "-t", "1"}, args...)...)
		})
	}
}
