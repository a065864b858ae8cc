package test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestDockerSeesWhatIsAttached(t *testing.T) {
	eachDocker(t, func(t *testing.T, d *daemon) {
		d.dockerOK("network", "create", "mynet")
		f := startForeign(d)
		port := freePort()
		id := d.ok("attach", "--pid", strconv.Itoa(f.pid), "--name", "ext", "--network", "mynet", "-p",
			fmt.Sprintf("127.0.0.1:%d:80", port))
		d.dockerSays("ext "+fmt.Sprintf("127.0.0.1:%d->80/tcp", port), "ps", "--format", "{{.Names}} {{.Ports}}")
		d.dockerSays(fmt.Sprint(f.pid), "inspect", "-f", "{{.State.Pid}}", "ext")
		d.dockerSays(fmt.Sprintf("127.0.0.1:%d", port), "port", "ext", "80/tcp")
		d.dockerSays("ext", "network", "inspect", "-f", "{{range .Containers}}{{.Name}}{{end}}", "mynet")
		d.dockerOK("network", "connect", "bridge", "ext")
		if r := f.run("ip", "-br", "addr"); !strings.Contains(r.stdout, "eth1") || !strings.Contains(r.stdout,
			"172.17.0.2/16") {
			t.Errorf("connecting with docker gives the sandbox nothing: %v", r)
		}
		d.dockerOK("network", "disconnect", "bridge", "ext")
		if r := f.run("ip", "-br", "addr"); strings.Contains(r.stdout, "eth1") {
			t.Errorf("%v", r)
		}
		d.dockerFails("usernet does not signal its processes", "kill", "ext")
		d.dockerFails("usernet does not signal its processes", "stop", "ext")
		d.ok("detach", "ext")
		d.dockerFails("No such", "inspect", id)
	})
}

// TestDockerAttachFailsAtOnce has what usernet cannot do refused while the container runs: the client waits for the
// header of the request for the exit status before it attaches.
func TestDockerAttachFailsAtOnce(t *testing.T) {
	eachDocker(t, func(t *testing.T, d *daemon) {
		d.idle("c1")
		d.dockerFails("501", "attach", "c1")
		d.dockerFails("This node is not", "swarm", "leave", "--force")
		d.dockerSays("inactive", "info", "-f", "{{.Swarm.LocalNodeState}}")
		d.dockerSays(" false", "inspect", "-f", "{{.NetworkSettings.Bridge}} {{.NetworkSettings.HairpinMode}}", "c1")
	})
}

// TestNobodyTakesTheDaemonsEndForSuccess has commands that wait fail when the daemon goes, in whatever way it goes.
func TestNobodyTakesTheDaemonsEndForSuccess(t *testing.T) {
	t.Parallel()
	waiting := [][]string{{"wait", "c1"}, {"logs", "-f", "c1"}, {"events"}, {"network", "events"}, {"flows", "--watch"}}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			d := startDaemon(t)
			d.container("c1", nil, "sh", "-c", "echo ready; exec sleep 1000000")
			d.logged("c1", "ready")
			results := make(chan result, len(waiting))
			for _, args := range waiting {
				cmd := exec.Command(usernet, args...)
				cmd.Env = d.environ()
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				go func() {
					text, _ := io.ReadAll(out)
					cmd.Wait()
					results <- result{args: args, stdout: string(text), stderr: stderr.String(),
						code: cmd.ProcessState.ExitCode()}
				}()
			}
			// Each has asked once its connection is there.
			eventually(t, func() error {
				out := d.command("ss", "-xH", "state", "connected").stdout
				if n := strings.Count(out, d.socket); n < 3 {
					return fmt.Errorf("%d connections to the daemon:\n%s", n, out)
				}
				return nil
			})
			d.stop(signal)
			for range waiting {
				select {
				case r := <-results:
					if r.code == 0 || !strings.Contains(r.stderr, "daemon") {
						t.Errorf("ends as if all were well: %v", r)
					}
				case <-time.After(patience):
					t.Fatal("a command does not end")
				}
			}
			d.start()
		})
	}
}

// TestEventsArriveAsTheyHappen watches with the docker CLI and with usernet.
func TestEventsArriveAsTheyHappen(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.dockerCLI = dockerClients(t)[0]
	watch := func(name string, args ...string) (line func() string) {
		cmd := exec.Command(name, args...)
		cmd.Env = d.environ()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := make(chan string)
		go func() {
			for s := bufio.NewScanner(out); s.Scan(); {
				lines <- s.Text()
			}
			close(lines)
		}()
		t.Cleanup(func() {
			cmd.Process.Kill()
			for range lines { // to the end
			}
			cmd.Wait()
		})
		return func() string {
			t.Helper()
			select {
			case l := <-lines:
				return l
			case <-time.After(patience):
				t.Fatalf("%s %v prints nothing", name, args)
				return ""
			}
		}
	}
	// What happened before comes first with --since; who has seen that watches.
	d.ok("network", "create", "mynet")
	flags := []string{"events", "--since", "1h", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"}
	docker, all, networks := watch(d.dockerCLI, flags...), watch(usernet, flags...),
		watch(usernet, append([]string{"network"}, flags...)...)
	for _, line := range []func() string{docker, all, networks} {
		if l := line(); l != "network create mynet" {
			t.Errorf("the first line is %q", l)
		}
	}
	d.idle("c1", "--network", "mynet")
	for _, want := range []string{"container create c1", "network connect mynet", "container start c1"} {
		for _, line := range []func() string{docker, all} {
			if l := line(); l != want {
				t.Errorf("printed: %q, want %q", l, want)
			}
		}
	}
	if l := networks(); l != "network connect mynet" {
		t.Errorf("network events prints %q", l)
	}
}

func TestPruneAsks(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "one")
	if r := d.commandInput("n\n", usernet, "network", "prune"); !strings.Contains(r.stdout, "WARNING! This will remove all custom networks not used by at least one container.") ||
		strings.Contains(r.stdout, "Deleted") {
		t.Errorf("%v", r)
	}
	if out := d.ok("network", "ls", "-q", "-f", "type=custom"); out == "" {
		t.Error("it was pruned against the answer")
	}
	if r := d.commandInput("y\n", usernet, "network", "prune"); r.code != 0 || !strings.Contains(r.stdout,
		"Deleted Networks:\none\n") {
		t.Errorf("%v", r)
	}
	d.ok("network", "create", "two")
	d.ok("network", "create", "three")
	d.idle("c1", "--network", "two")
	r := d.try("network", "rm", "two", "nothing", "three")
	if r.code != 1 || r.stdout != "three\n" || !strings.Contains(r.stderr, "has active endpoints") ||
		!strings.Contains(r.stderr, "network nothing not found") {
		t.Errorf("what can be removed is, and the rest is named: %v", r)
	}
}

func TestConnectWithAMAC(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("c1")
	d.idle("c2")
	d.ok("network", "connect", "--mac-address", "02:00:00:00:00:77", "--driver-opt", "usernet.offload=false", "mynet",
		"c1")
	d.says("02:00:00:00:00:77", "c1", "ip", "link", "show", "eth1")
	d.fails("is already in use", "network", "connect", "--mac-address", "02:00:00:00:00:77", "mynet", "c2")
	d.fails("group address", "network", "connect", "--mac-address", "01:00:00:00:00:77", "mynet", "c2")
	d.fails("invalid key/value pair format in driver options", "network", "connect", "--driver-opt", "nothing", "mynet",
		"c2")
	d.ok("network", "connect", "mynet", "c2")
	d.says(" 0% packet loss", "c2", "ping", "-c1", "-W5", "c1")
}

// TestDockerSpeaksEachVersion makes the client speak older versions of the API.
func TestDockerSpeaksEachVersion(t *testing.T) {
	eachDocker(t, func(t *testing.T, d *daemon) {
		for _, version := range []string{"1.24", "1.30", "1.40", "1.41"} {
			run := func(args ...string) string {
				t.Helper()
				r := d.command("env", append([]string{"DOCKER_API_VERSION=" + version, d.dockerCLI}, args...)...)
				if r.code != 0 {
					t.Errorf("API %s: %v", version, r)
				}
				return strings.TrimSuffix(r.stdout, "\n")
			}
			run("network", "create", "--subnet", "10.50.0.0/24", "mynet")
			d.idle("c1", "--network", "mynet")
			run("network", "disconnect", "mynet", "c1")
			run("network", "connect", "--alias", "x", "--ip", "10.50.0.9", "mynet", "c1")
			if out := run("inspect", "-f", "{{.NetworkSettings.Networks.mynet.IPAddress}}", "c1"); out != "10.50.0.9" {
				t.Errorf("API %s: inspect prints %q", version, out)
			}
			if out := run("network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}",
				"mynet"); out != "c1 10.50.0.9/24" {
				t.Errorf("API %s: network inspect prints %q", version, out)
			}
			if out := run("ps", "--format", "{{.Names}}"); out != "c1" {
				t.Errorf("API %s: ps prints %q", version, out)
			}
			d.ok("rm", "-f", "c1")
			run("network", "rm", "mynet")
		}
	})
}
