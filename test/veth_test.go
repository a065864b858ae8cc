package test

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestWithoutTUN: where /dev/net/tun cannot be opened, as in a container of another engine, interfaces are veth pairs
// with packet sockets, and everything works as with TAPs.
func TestWithoutTUN(t *testing.T) {
	t.Parallel()
	prefix := namespaceWithoutTUN(t) // it ends after the daemon
	d := newDaemon(t)
	d.prefix = prefix
	d.start()
	if r := d.try("check"); !strings.Contains(r.stdout, "veth pairs with packet sockets") {
		t.Errorf("check does not say what is used instead of TAPs: %v", r)
	}
	d.ok("network", "create", "mynet")
	d.ok("run", "-d", "--name", "web", "--network", "mynet", "-p", "18080:80", "--", "busybox", "httpd", "-f", "-p",
		"80", "-h", "/etc")
	if text := d.ok("exec", "web", "ip", "-d", "link", "show", "eth0"); !strings.Contains(text, "veth") {
		t.Errorf("eth0 is no veth pair: %s", text)
	}
	for what, args := range map[string][]string{
		"a neighbour by name": {"run", "--rm", "--network", "mynet", "--", "curl", "-sf", "http://web/hostname"},
		"a neighbour by ping": {"run", "--rm", "--network", "mynet", "--", "ping", "-c", "1", "-W", "5", "web"},
	} {
		if r := d.try(args...); r.code != 0 {
			t.Errorf("%s is not reached: %v", what, r)
		}
	}
	if r := d.command("curl", "-sf", "--retry", "5", "--retry-connrefused",
		"http://127.0.0.1:18080/hostname"); r.code != 0 {
		t.Errorf("the published port does not answer: %v", r)
	}
	d.stop(syscall.SIGKILL)
	d.start() // the pair outlives the daemon
	if r := d.try("run", "--rm", "--network", "mynet", "--", "curl", "-sf", "http://web/hostname"); r.code != 0 {
		t.Errorf("a neighbour is not reached after the daemon's end: %v", r)
	}
	d.ok("network", "disconnect", "mynet", "web")
	if r := d.try("exec", "web", "ip", "link", "show", "eth0"); r.code == 0 {
		t.Errorf("the interface is left behind: %v", r)
	}
}

// namespaceWithoutTUN returns a command that runs others in a user and mount namespace in which /dev/net is empty.
func namespaceWithoutTUN(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
		"mount -t tmpfs none /dev/net && echo $$ && exec cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(line, &pid); err != nil {
		t.Fatal(err)
	}
	return []string{"nsenter", "--preserve-credentials", "--user", "--mount", fmt.Sprint("--target=", pid)}
}
