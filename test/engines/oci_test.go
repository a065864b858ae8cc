package engines

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHooksUnderPodman has the hook called by Podman, with both runtimes.
func TestOCIHooksUnderPodman(t *testing.T) {
	for _, runtime := range []string{"crun", "runc"} {
		t.Run(runtime, func(t *testing.T) {
			p := newPodman(t, runtime)
			_, end := p.daemon()
			p.ok(usernet, "network", "create", "mynet")
			hooks := filepath.Join(p.dir, "hooks")
			if err := os.Mkdir(hooks, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, stage := range []string{"createRuntime", "poststop"} {
				text, err := json.Marshal(map[string]any{
					"version": "1.0.0", "stages": []string{stage}, "when": map[string]any{"annotations": map[string]string{`^usernet\.network$`: ".*"}},
					"hook": map[string]any{"path": usernet,
						"args": []string{"usernet", "oci-hook", "--host",
							"unix://" + filepath.Join(p.dir, "run/usernet/usernet.sock"), stage}},
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(hooks, stage+".json"), text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			run := func(args ...string) string {
				return p.ok("podman", append([]string{"--hooks-dir", hooks, "run", "--network", "none", "--annotation",
					"usernet.network=mynet"}, args...)...)
			}
			run("-d", "--name", "web", "--annotation", "usernet.name=web", "--annotation", "usernet.publish=18491:80",
				"--annotation", "usernet.alias=shop", "bb:1",
				"httpd", "-f", "-p", "80", "-h", "/var/www")
			eventually(t, func() error { return says("http://127.0.0.1:18491/", "container\n") })
			if out := run("--rm", "bb:1", "sh", "-c", "wget -qO- http://web/ http://shop/; wget -qO- http://192.0.2.1:8000/; grep nameserver /etc/resolv.conf"); out != "container\ncontainer\noutside\nnameserver 127.0.0.11" {
				t.Errorf("inside: %q", out)
			}
			run("-d", "--name", "app", "bb:1", "sleep", "1000")
			end = p.removesWithoutDaemon(end, func(name string) {
				run("-d", "--name", name, "--annotation", "usernet.name="+name, "bb:1", "sleep", "1000")
			}, func(name string) { p.ok("podman", "--hooks-dir", hooks, "rm", "--force", "--time", "0", name) })
			log := talkers{t: t, u: p.user, exec: podmanExec}.survive(end, "app", "web", "http://127.0.0.1:18491/")
			p.ok("podman", "--hooks-dir", hooks, "rm", "--force", "--time", "0", "web", "app")
			eventually(t, func() error {
				if out := p.ok(usernet, "ps", "-aq"); out != "" {
					return fmt.Errorf("left after the end: %q", out)
				}
				return nil
			})
			r := p.try("podman", "--hooks-dir", hooks, "run", "--rm", "--network", "none", "--annotation",
				"usernet.network=nonesuch", "bb:1", "true")
			said := r.stderr
			if runtime == "crun" { // it keeps what its hooks say to itself
				text, err := os.ReadFile(log)
				if err != nil {
					t.Fatal(err)
				}
				said = string(text)
			}
			if r.code == 0 || !strings.Contains(said, "nonesuch") {
				t.Errorf("a network that is not there: %v; %s", r, said)
			}
		})
	}
}
