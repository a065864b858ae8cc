package engines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// start starts a program that lives until the test ends, which it asks it to do with SIGTERM. Its output is in the
// log that is returned.
func (u *user) start(name string, args ...string) (log string) {
	u.t.Helper()
	log, _ = u.startEnding(name, args...)
	return log
}

// startEnding is start, and returns besides what ends the program with a signal and waits for its end.
func (u *user) startEnding(name string, args ...string) (log string, end func(syscall.Signal)) {
	u.t.Helper()
	f, err := os.CreateTemp(u.dir, "log-")
	if err != nil {
		u.t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = u.environ, u.dir, f, f
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	end = func(s syscall.Signal) {
		_ = cmd.Process.Signal(s)
		_ = cmd.Wait() // its status is not what is tested
	}
	u.t.Cleanup(func() {
		end(syscall.SIGTERM)
		if u.t.Failed() {
			text, _ := os.ReadFile(f.Name())
			u.t.Logf("%s:\n%s", name, text)
		}
	})
	return f.Name(), end
}

// path puts directories before the others that programs are looked for in.
func (u *user) path(dirs ...string) {
	for i, e := range u.environ {
		if rest, ok := strings.CutPrefix(e, "PATH="); ok {
			u.environ[i] = "PATH=" + strings.Join(append(dirs, rest), ":")
		}
	}
}

// TestRootlessKit calls it with each of its network options and port drivers.
func TestRootlessKit(t *testing.T) { callsFromRootlessKit(t) }

// TestDebian13RootlessKit is the same with RootlessKit 2, and with what it has besides: the namespace detached, and
// pasta.
func TestDebian13RootlessKit(t *testing.T) {
	if v := newUser(t).ok("rootlesskit", "--version"); !strings.Contains(v, "version 2.") {
		t.Fatalf("this test needs RootlessKit 2, as in Debian 13: %s", v)
	}
	callsFromRootlessKit(t)
	for name, args := range map[string][]string{
		"detached": {"--net=slirp4netns", "--slirp4netns-binary=" + slirp4netns, "--detach-netns",
			"--port-driver=builtin", "-p", "127.0.0.1:18640:80/tcp"},
		"pasta": {"--net=pasta", "--port-driver=implicit"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t)
			u.path(helpers(t, map[string]string{"pasta": pasta}))
			www := filepath.Join(u.dir, "www")
			if err := os.MkdirAll(www, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(www, "index.html"), []byte("namespace\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			// Detached, the command is in the host's network namespace, and the other is a file.
			script := "port=18640; [ ! -e $ROOTLESSKIT_STATE_DIR/netns ] || { port=80; enter=\"nsenter --net=$ROOTLESSKIT_STATE_DIR/netns\"; }\n" +
				"exec $enter busybox httpd -f -p $port -h " + www
			args := append([]string{"--state-dir=" + filepath.Join(u.dir, "state"), "--disable-host-loopback",
				"--copy-up=/etc"}, args...)
			u.start("rootlesskit", append(args, "sh", "-c", script)...)
			eventually(t, func() error { return says("http://127.0.0.1:18640/", "namespace\n") })
		})
	}
}

func callsFromRootlessKit(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"plain", []string{"--net=slirp4netns"},
			[]string{"10.0.2.100/24", "mtu 65520", "outside", "192.0.2.2", "nameserver 10.0.2.3"}},
		{"all options", []string{"--net=slirp4netns", "--mtu=1500", "--disable-host-loopback",
			"--slirp4netns-sandbox=auto",
			"--slirp4netns-seccomp=auto", "--ipv6", "--cidr=10.77.0.0/24"},
			[]string{"10.77.0.100/24", "mtu 1500", "outside", "192.0.2.2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newUser(t)
			script := "ip addr show tap0; cat /etc/resolv.conf; curl -s http://192.0.2.1:8000/; sleep 1 | ncat 192.0.2.1 7000"
			args := append([]string{"--slirp4netns-binary=" + slirp4netns, "--copy-up=/etc"}, c.args...)
			out := u.ok("rootlesskit", append(args, "sh", "-c", script)...)
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("%q is not in:\n%s", w, out)
				}
			}
		})
	}
	for i, driver := range []string{"builtin", "slirp4netns"} {
		t.Run("port driver "+driver, func(t *testing.T) {
			u := newUser(t)
			port := 18600 + i
			www := filepath.Join(u.dir, "www")
			if err := os.MkdirAll(www, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(www, "index.html"), []byte("namespace\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			state := filepath.Join(u.dir, "state")
			u.start("rootlesskit", "--state-dir="+state, "--net=slirp4netns", "--slirp4netns-binary="+slirp4netns,
				"--port-driver="+driver,
				"--disable-host-loopback", "-p", fmt.Sprintf("127.0.0.1:%d:80/tcp", port), "--copy-up=/etc",
				"busybox", "httpd", "-f", "-p", "80", "-h", www)
			eventually(t, func() error { return says(fmt.Sprintf("http://127.0.0.1:%d/", port), "namespace\n") })
			ctl := []string{"--socket=" + filepath.Join(state, "api.sock")}
			u.ok("rootlessctl", append(ctl, "add-ports", fmt.Sprintf("127.0.0.1:%d:80/tcp", port+10))...)
			eventually(t, func() error { return says(fmt.Sprintf("http://127.0.0.1:%d/", port+10), "namespace\n") })
			u.ok("rootlessctl", append(ctl, "remove-ports", "1")...)
			eventually(t, func() error {
				if says(fmt.Sprintf("http://127.0.0.1:%d/", port), "namespace\n") == nil {
					return fmt.Errorf("a removed port answers")
				}
				return nil
			})
		})
	}
}
