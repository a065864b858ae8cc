package engines

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDebian13CNIWithDetachedNamespace has the plugin called as nerdctl's OCI hook calls it under RootlessKit 2 with
// --detach-netns: by root of RootlessKit's user namespace, in its mount namespace and in the detached network
// namespace, for a container's that is beside it.
func TestDebian13CNIWithDetachedNamespace(t *testing.T) {
	u := newUser(t)
	_, end := u.daemon()
	if err := os.Symlink(usernet, filepath.Join(u.dir, "usernet-cni")); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(u.dir, "state")
	u.start("rootlesskit", "--state-dir="+state, "--net=slirp4netns", "--slirp4netns-binary="+slirp4netns,
		"--detach-netns", "--port-driver=builtin", "--disable-host-loopback", "--copy-up=/etc", "--copy-up=/run",
		"--propagation=rslave", "sleep", "1000")
	var child string
	eventually(t, func() error {
		text, err := os.ReadFile(filepath.Join(state, "child_pid"))
		if child = strings.TrimSpace(string(text)); err == nil {
			_, err = os.Stat(filepath.Join("/proc", child, "root", state, "netns"))
		}
		return err
	})
	n := nerdctl{u, state, []string{"nsenter", "--preserve-credentials", "--user", "--mount", "--target", child, "--"}}
	www := filepath.Join(u.dir, "www")
	err := errors.Join(os.Mkdir(www, 0o755),
		os.WriteFile(filepath.Join(www, "index.html"), []byte("container\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	web, app := n.container("web", "httpd", "-f", "-p", "80", "-h", www), n.container("app", "sleep", "1000")

	n.call("DEL", "web", "") // which it does before each ADD
	mapped := `{"portMappings": [{"hostPort": 18771, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"}]}`
	result := n.call("ADD", "web", mapped, web)
	var made struct {
		IPs    []struct{ Address string }
		Routes []struct{ Dst string }
	}
	if err := json.Unmarshal([]byte(result), &made); err != nil || len(made.IPs) != 1 || len(made.Routes) != 1 {
		t.Fatalf("ADD: %v, %s", err, result)
	}
	n.call("ADD", "app", "{}", app)
	addr, _, _ := strings.Cut(made.IPs[0].Address, "/")
	look := func(when string) {
		t.Helper()
		for url, want := range map[string]string{
			"http://" + addr + "/": "container", "http://192.0.2.1:8000/": "outside",
		} {
			line := n.in(app, "busybox", "wget", "-T", "5", "-qO-", url)
			eventually(t, func() error {
				if r := u.try(line[0], line[1:]...); strings.TrimSpace(r.stdout) != want {
					return fmt.Errorf("%s: want %q: %v", when, want, r)
				}
				return nil
			})
		}
	}
	look("at the beginning")
	u.answers("container", usernet, "run", "--rm", "--network", "nerd", "--", "busybox", "wget", "-qO-", "http://web/")

	// The port of the host is RootlessKit's to bind: nerdctl asks it to.
	if r := u.try(usernet, "port", "web"); strings.Contains(r.stdout, "18771") {
		t.Errorf("the plugin publishes what RootlessKit is asked to: %v", r)
	}
	end(syscall.SIGKILL)
	u.daemon()
	look("after the daemon was killed")
	n.call("DEL", "web", mapped, web)
	n.call("DEL", "app", "{}", app)
	u.nothing("DEL")
}

// nerdctl has what its hook would have.
type nerdctl struct {
	*user
	state string   // of RootlessKit
	enter []string // the command that enters its user and mount namespace
}

// container starts a container's process, and returns its pid.
func (n nerdctl) container(name string, command ...string) (pid string) {
	n.t.Helper()
	file := filepath.Join(n.dir, name+".pid")
	line := append(n.enter[:len(n.enter):len(n.enter)], "unshare", "--net", "sh", "-c",
		`echo $$ >"$0"; exec busybox "$@"`, file)
	line = append(line, command...)
	n.start(line[0], line[1:]...)
	eventually(n.t, func() error {
		text, err := os.ReadFile(file)
		if pid = strings.TrimSpace(string(text)); err == nil && pid == "" {
			err = fmt.Errorf("%s has not started", name)
		}
		return err
	})
	return pid
}

// in is the command line that runs a command in a container's network namespace.
func (n nerdctl) in(pid string, command ...string) []string {
	line := append(n.enter[:len(n.enter):len(n.enter)], "nsenter", "--net=/proc/"+pid+"/ns/net", "--")
	return append(line, command...)
}

// call has the plugin called as the hook does, and returns its answer.
func (n nerdctl) call(verb, name, runtimeConfig string, pid ...string) string {
	n.t.Helper()
	netns := ""
	if len(pid) > 0 {
		netns = "/proc/" + pid[0] + "/ns/net"
	}
	line := append(n.enter[:len(n.enter):len(n.enter)], "nsenter", "--net="+filepath.Join(n.state, "netns"), "--",
		filepath.Join(n.dir, "usernet-cni"))
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(n.environ, "ROOTLESSKIT_STATE_DIR="+n.state, "CNI_COMMAND="+verb, "CNI_CONTAINERID=default-"+name,
		"CNI_NETNS="+netns, "CNI_IFNAME=eth0", "CNI_PATH="+n.dir,
		"CNI_ARGS=IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME="+name)
	if runtimeConfig == "" {
		runtimeConfig = "{}"
	}
	cmd.Stdin = strings.NewReader(`{"cniVersion": "1.0.0", "name": "nerd", "type": "usernet-cni", "capabilities":
		{"portMappings": true}, "runtimeConfig": ` + runtimeConfig + `}`)
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s %s: %v: %s", verb, name, err, out)
	}
	return string(out)
}
