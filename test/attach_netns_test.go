package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// startForeignIn starts a process in namespaces that usernet did not make, whose user knows itself as uid.
func startForeignIn(d *daemon, prefix ...string) foreign {
	d.t.Helper()
	pidFile := filepath.Join(d.dir, fmt.Sprint("foreign-", freePort()))
	script := "echo $$ > " + pidFile + ".new && mv " + pidFile + ".new " + pidFile + " && exec sleep 1000000"
	args := append(prefix, "sh", "-c", script)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = d.environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	eventually(d.t, func() error {
		_, err := os.Stat(pidFile)
		return err
	})
	pid, err := strconv.Atoi(strings.TrimSpace(readFile(d.t, pidFile)))
	if err != nil {
		d.t.Fatal(err)
	}
	return foreign{pid, d}
}

// links are the names of the interfaces in f's namespace, but for the loopback.
func (f foreign) links() string {
	f.d.t.Helper()
	r := f.run("ip", "-o", "link")
	var names []string
	for _, line := range strings.Split(strings.TrimSpace(r.stdout), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] != "lo:" {
			names = append(names, strings.TrimSuffix(fields[1], ":"))
		}
	}
	return strings.Join(names, " ")
}

// TestAttachWhatTheDaemonCannotSee attaches a namespace at a path in a mount namespace of the client's, as runtimes
// have them. The client is in the network namespace itself, so that it needs --share-api.
func TestAttachWhatTheDaemonCannotSee(t *testing.T) {
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.serve("web", []string{"--network", "mynet"}, helper, "tcpserve", ":80", "addr")
	script := fmt.Sprintf(`mount -t tmpfs none /mnt && touch /mnt/ns && mount --bind /proc/self/ns/net /mnt/ns &&
		%[1]s attach --netns /mnt/ns --name ext --network mynet --key k1 --share-api && %[1]s attach --netns /mnt/ns --name ext --network mynet --key k1 &&
		%[2]s tcpdial %[3]s:80 && ip -o link && %[1]s detach --key k1 && ip -o link`, daemonProgram, helper, d.address("web"))
	r := d.command("unshare", "-Urmn", "sh", "-c", script)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if r.code != 0 || len(lines) < 6 || lines[0] != lines[1] || !strings.HasPrefix(lines[2], "ok") {
		t.Fatalf("%v", r)
	}
	if !strings.Contains(r.stdout, "eth0") || strings.Contains(lines[len(lines)-1], "eth0") {
		t.Errorf("after the end the interface is there, or it never was: %v", r)
	}
	if left := d.ok("ps", "-aq", "--filter", "name=ext"); left != "" {
		t.Errorf("the container is still there")
	}
	d.ok("detach", "--key", "k1") // once more is no error
}

// TestAttachBelowAnotherUserNamespace attaches where the user is not root but another number, as with Podman's keep-id.
func TestAttachBelowAnotherUserNamespace(t *testing.T) {
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	f := startForeignIn(d, "unshare", "-Ur", "unshare", "-U", "--map-user=1000", "-n")
	d.ok("attach", "--pid", strconv.Itoa(f.pid), "--name", "ext", "--network", "mynet")
	out := readFile(t, fmt.Sprintf("/proc/%d/net/dev", f.pid))
	if !strings.Contains(out, "eth0:") {
		t.Errorf("no interface:\n%s", out)
	}
	d.idle("other", "--network", "mynet")
	d.says(" 0% packet loss", "other", "ping", "-c1", "-W5", "ext")
}

// TestAttachedInterfacesGoAtTheEnd ends what was attached in each way, and looks into the namespace, which lives on.
func TestAttachedInterfacesGoAtTheEnd(t *testing.T) {
	d := startDaemon(t)
	f := startForeign(d)
	helperProcess := exec.Command("nsenter", "--preserve-credentials", "--user", "--net", "--target",
		strconv.Itoa(f.pid), "sleep", "1000000")
	if err := helperProcess.Start(); err != nil {
		t.Fatal(err)
	}
	d.ok("attach", "--pid", strconv.Itoa(helperProcess.Process.Pid), "--name", "by-pid")
	if got := f.links(); got != "eth0" {
		t.Fatalf("interfaces: %s", got)
	}
	_ = helperProcess.Process.Kill()
	_ = helperProcess.Wait()
	gone := func() error {
		if got := f.links(); got != "" {
			return fmt.Errorf("interfaces are left: %s", got)
		}
		return nil
	}
	eventually(t, gone)

	link := filepath.Join(d.dir, "netns") // a path that will lead elsewhere
	if err := os.Symlink(fmt.Sprintf("/proc/%d/ns/net", f.pid), link); err != nil {
		t.Fatal(err)
	}
	d.ok("attach", "--netns", link, "--name", "by-path")
	if got := f.links(); got != "eth0" {
		t.Fatalf("interfaces: %s", got)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	eventually(t, gone)

	d.ok("attach", "--pid", strconv.Itoa(f.pid), "--name", "by-hand")
	d.ok("detach", "by-hand")
	if err := gone(); err != nil {
		t.Error(err)
	}

	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	d.fails("port is already allocated", "attach", "--pid", strconv.Itoa(f.pid), "--name", "refused", "-p",
		taken.Addr().String()+":80")
	if err := gone(); err != nil {
		t.Errorf("after a refusal %v", err)
	}
}

// TestAttachOneNamespaceToSeveralNetworks attaches by turns, as a runtime does that calls once for each network.
func TestAttachOneNamespaceToSeveralNetworks(t *testing.T) {
	d := startDaemon(t)
	d.ok("network", "create", "one")
	d.ok("network", "create", "two")
	f := startForeign(d)
	pid := strconv.Itoa(f.pid)
	first := d.ok("attach", "--pid", pid, "--name", "ext", "--network", "one", "--key", "c/one", "--interface", "net0")
	second := d.ok("attach", "--pid", pid, "--name", "also", "--network", "two", "--key", "c/two")
	if first != second {
		t.Errorf("one namespace is two containers: %s, %s", first, second)
	}
	for range 2 { // with the same keys nothing is made
		d.ok("attach", "--pid", pid, "--name", "ext", "--network", "one", "--key", "c/one")
		d.ok("attach", "--pid", pid, "--name", "ext", "--network", "two", "--key", "c/two")
	}
	if got := f.links(); got != "net0 eth0" {
		t.Errorf("interfaces: %s", got)
	}
	d.idle("on-one", "--network", "one")
	d.idle("on-two", "--network", "two")
	d.says(" 0% packet loss", "on-one", "ping", "-c1", "-W5", "ext")
	d.says(" 0% packet loss", "on-two", "ping", "-c1", "-W5", "also")
	d.ok("detach", "--key", "c/one")
	if got := f.links(); got != "eth0" {
		t.Errorf("interfaces: %s", got)
	}
	d.says(" 0% packet loss", "on-two", "ping", "-c1", "-W5", "ext")
	if r := f.run("ping", "-c1", "-W5", peer4); r.code != 0 {
		t.Errorf("the way out is gone with one of two networks: %v", r)
	}
	d.ok("detach", "--key", "c/two")
	if got := f.links(); got != "" {
		t.Errorf("interfaces: %s", got)
	}
}

// TestAttachUnconfigured leaves addresses to the caller.
func TestAttachUnconfigured(t *testing.T) {
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	f := startForeign(d)
	d.ok("attach", "--pid", strconv.Itoa(f.pid), "--name", "ext", "--network", "mynet", "--unconfigured", "--interface",
		"foo0")
	if r := f.run("ip", "-o", "-4", "addr", "show", "dev", "foo0"); r.code != 0 || r.stdout != "" {
		t.Errorf("it has addresses: %v", r)
	}
	if r := f.run("ip", "route"); r.stdout != "" {
		t.Errorf("there are routes: %v", r)
	}
	d.idle("other", "--network", "mynet")
	address := strings.TrimSpace(d.ok("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}/{{.IPPrefixLen}}{{end}}", "ext"))
	if r := f.run("ip", "addr", "add", address, "dev", "foo0"); r.code != 0 {
		t.Fatalf("%q: %v", address, r)
	}
	d.says(" 0% packet loss", "other", "ping", "-c1", "-W5", "ext")
}

// TestAttachRefusesWhatIsNoNamespace sends descriptors of other things.
func TestAttachRefusesWhatIsNoNamespace(t *testing.T) {
	d := startDaemon(t)
	for path, words := range map[string]string{
		"/dev/null":          "not a namespace",
		"/proc/self/ns/user": "another kind of namespace",
		"/proc/self/ns/net":  "usernet itself runs in",
		"/nowhere":           "no such file",
	} {
		d.fails(words, "attach", "--netns", path, "--name", "ext")
	}
	if left := d.ok("ps", "-aq"); left != "" {
		t.Error("a container was made")
	}
}

// TestAttachOneThatIsBeingStarted: what was put in the background is no process in a namespace of its own at once.
func TestAttachOneThatIsBeingStarted(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	cmd := exec.Command("sh", "-c", "sleep 0.5; exec unshare -Urn sleep 1000000") // a slow one
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	d.ok("attach", "--pid", strconv.Itoa(cmd.Process.Pid), "--name", "slow")
	d.ok("detach", "slow")
}
