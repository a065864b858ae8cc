package engines

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// plain starts bundles with a runtime itself, with the hooks in the stage in which its containers can be looked into.
type plain struct {
	*user
	runtime, stage string
}

var plainRuntimes = map[string]string{"runc": "createRuntime", "crun": "createContainer"}

// bundle makes a bundle of a container that runs a command of the shell, in a network namespace of its own, with
// a hook of the stage after usernet's where one is given.
func (p plain) bundle(name, command string, hook ...string) (dir string) {
	t := p.t
	t.Helper()
	dir = filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.ok("tar", "-C", filepath.Join(dir, "rootfs"), "-xf", image)
	p.ok("sh", "-c", "cd "+dir+" && "+p.runtime+" spec --rootless")
	config := map[string]any{}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	socket := "unix://" + filepath.Join(p.dir, "run/usernet/usernet.sock")
	hooks := map[string][]map[string]any{}
	for _, stage := range []string{p.stage, "poststop"} {
		hooks[stage] = []map[string]any{
			{"path": usernet, "args": []string{"usernet", "oci-hook", "--host", socket, stage}}}
	}
	if len(hook) > 0 {
		hooks[p.stage] = append(hooks[p.stage], map[string]any{"path": hook[0], "args": hook})
	}
	config["hooks"] = hooks
	config["annotations"] = map[string]string{"usernet.network": "mynet", "usernet.name": name}
	config["mounts"] = append(config["mounts"].([]any),
		map[string]any{"destination": "/etc/resolv.conf", "source": resolv, "type": "bind",
			"options": []string{"bind", "ro"}})
	config["root"] = map[string]any{"path": "rootfs"} // to be written to
	process := config["process"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"/bin/sh", "-c", command}
	linux := config["linux"].(map[string]any)
	linux["namespaces"] = append(linux["namespaces"].([]any), map[string]any{"type": "network"})
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// command is the runtime's command line.
func (p plain) command(args ...string) []string {
	return append([]string{p.runtime, "--root", filepath.Join(p.dir, "run/oci")}, args...)
}

// exec runs a command in a container.
func (p plain) exec(container string, command ...string) []string {
	return append(p.command("exec", container), command...)
}

// detached is exec without a wait: runc waits for the command's children as well.
func (p plain) detached(container string, command ...string) []string {
	return append(p.command("exec", "--detach", container), command...)
}

// nothing waits until usernet has no container.
func (u *user) nothing(after string) {
	u.t.Helper()
	eventually(u.t, func() error {
		if left := u.ok(usernet, "ps", "-aq"); left != "" {
			return fmt.Errorf("left after %s: %q", after, left)
		}
		return nil
	})
}

func TestOCIHooksOfPlainRuntimes(t *testing.T) {
	for runtime, stage := range plainRuntimes {
		t.Run(runtime, func(t *testing.T) {
			p := plain{newUser(t), runtime, stage}
			p.daemon()
			p.ok(usernet, "network", "create", "mynet")
			dir := p.bundle("box", "wget -qO- http://192.0.2.1:8000/; nslookup box; cat /etc/resolv.conf")
			run := p.command("run", "--bundle", dir, "c1")
			r := p.try(run[0], run[1:]...)
			out := r.stdout
			if r.code != 0 || strings.Contains(r.stderr, "hook") { // runc goes on where the last hook has failed
				t.Errorf("a hook has failed: %v", r)
			}
			for _, want := range []string{"outside", "Name:", "172.1", "nameserver 127.0.0.11"} {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in:\n%s", want, out)
				}
			}
			if left := p.ok(usernet, "ps", "-aq"); left != "" {
				t.Errorf("left after the end: %q", left)
			}
		})
	}
}

// TestOCIHooksOfPlainRuntimesSurvive kills the daemon under containers of runc and crun, and the runtimes themselves
// between their calls.
func TestOCIHooksOfPlainRuntimesSurvive(t *testing.T) {
	for runtime, stage := range plainRuntimes {
		t.Run(runtime, func(t *testing.T) {
			p := plain{newUser(t), runtime, stage}
			_, end := p.daemon()
			p.ok(usernet, "network", "create", "mynet")
			var ends []func(syscall.Signal)
			for _, name := range []string{"web", "app"} {
				dir := p.bundle(name, "trap exit TERM; httpd -f -p 80 -h /var/www & wait")
				run := p.command("run", "--bundle", dir, name)
				_, end := p.startEnding(run[0], run[1:]...)
				ends = append(ends, end)
				p.answers("running", p.runtime, p.command("state", name)[1:]...)
			}
			p.ok(usernet, "port", "add", "web", "18496:80")
			talkers{t, p.user, p.exec, p.detached}.survive(end, "app", "web", "http://127.0.0.1:18496/")

			for _, end := range ends {
				end(syscall.SIGTERM)
			}
			p.nothing("the end")

			// The hook after usernet's waits, and the runtime has no time for poststop.
			reached, leave := filepath.Join(p.dir, "reached"), filepath.Join(p.dir, "leave")
			dir := p.bundle("lost", "true", "/bin/sh", "-c", fmt.Sprintf(
				": >%s; for i in $(seq 600); do [ ! -e %s ] || exit 0; sleep 0.1; done", reached, leave))
			run := p.command("run", "--bundle", dir, "lost")
			_, kill := p.startEnding(run[0], run[1:]...)
			eventually(t, func() error { _, err := os.Stat(reached); return err })
			p.answers("lost", usernet, "ps", "--format", "{{.Names}}")
			kill(syscall.SIGKILL)
			if err := os.WriteFile(leave, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			p.nothing("a runtime that was killed")
		})
	}
}
