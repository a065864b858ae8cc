package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
)

// cniTool is the path of a program of the module tools/cni.
func cniTool(name string) string { return filepath.Join(filepath.Dir(helper), name) }

// TestCNITool has the plugin called by cnitool, alone and with a second namespace, by what is in a directory of
// configurations, as in the CNI project's documentation.
func TestCNITool(t *testing.T) {
	tool := cniTool("cnitool")
	d := startDaemon(t)
	bin, confs := filepath.Join(d.dir, "cni"), filepath.Join(d.dir, "net.d")
	for _, dir := range []string{bin, confs} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(daemonProgram, filepath.Join(bin, "usernet-cni")); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net1", "plugins": [{"type": "usernet-cni", "socket": %q,
		"subnet": "10.66.0.0/24", "capabilities": {"portMappings": true}}]}`, d.socket)
	if err := os.WriteFile(filepath.Join(confs, "10-net1.conflist"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	port := freePort()
	// cnitool keeps results in /var/lib/cni, and knows a container by the path of its network namespace.
	const script = `mount --bind "$0" /var/lib && : >"/var/lib/$1" && mount --bind /proc/self/fd/3 "/var/lib/$1" &&
		exec "$2" "$3" net1 "/var/lib/$1"`
	lib := filepath.Join(d.dir, "lib")
	if err := os.Mkdir(lib, 0o755); err != nil {
		t.Fatal(err)
	}
	call := func(f foreign, verb string, env ...string) (string, error) {
		netns, err := os.Open("/proc/" + strconv.Itoa(f.pid) + "/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		defer netns.Close()
		cmd := exec.Command("unshare", "-rm", "sh", "-c", script, lib, strconv.Itoa(f.pid), tool, verb)
		cmd.ExtraFiles = []*os.File{netns}
		cmd.Env = append(os.Environ(), append(env, "CNI_PATH="+bin, "NETCONFPATH="+confs, "CNI_IFNAME=eth3")...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	web, other := startForeign(d), startForeign(d)
	ports := fmt.Sprintf(`CAP_ARGS={"portMappings": [{"hostPort": %d, "containerPort": 80, "protocol": "tcp"}]}`, port)
	out, err := call(web, "add", ports)
	var result current.Result
	if err != nil || json.Unmarshal([]byte(out), &result) != nil || len(result.IPs) != 1 {
		t.Fatalf("cnitool add: %v\n%s", err, out)
	}
	if out, err := call(other, "add"); err != nil {
		t.Fatalf("cnitool add of another: %v\n%s", err, out)
	}
	serveIn(web, ":80")
	if r := other.run(helper, "tcpdial", result.IPs[0].Address.IP.String()+":80"); r.code != 0 {
		t.Errorf("one container to the other: %v", r)
	}
	if r := d.command(helper, "tcpdial", fmt.Sprintf("127.0.0.1:%d", port)); r.code != 0 {
		t.Errorf("the published port: %v", r)
	}
	for _, step := range []struct {
		f    foreign
		verb string
	}{{web, "status"}, {web, "check"}, {other, "check"}, {web, "del"}, {other, "del"}, {web, "del"}} {
		if out, err := call(step.f, step.verb, ports); err != nil {
			t.Errorf("cnitool %s: %v\n%s", step.verb, err, out)
		}
	}
	if web.links() != "" || other.links() != "" || d.ok("ps", "-aq") != "" {
		t.Errorf("after del: %q, %q, containers %q", web.links(), other.links(), d.ok("ps", "-aq"))
	}
}

// TestCNIPluginsTestHelpers has the plugin called as the plugins' project calls its own in its tests.
func TestCNIPluginsTestHelpers(t *testing.T) {
	tool := cniTool("plugintest")
	d := startDaemon(t)
	plugin := filepath.Join(d.dir, "usernet-cni")
	if err := os.Symlink(daemonProgram, plugin); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		f := startForeign(d)
		cmd := exec.Command(tool, plugin, "/proc/"+strconv.Itoa(f.pid)+"/ns/net", "one-"+version)
		cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion": %q, "name": "net1", "type": "usernet-cni", "socket": %q,
			"subnet": "10.66.0.0/24"}`, version, d.socket))
		out, err := cmd.CombinedOutput()
		var result struct{ CNIVersion string }
		if err != nil || json.Unmarshal(out, &result) != nil || result.CNIVersion != version {
			t.Errorf("%s: %v\n%s", version, err, out)
		}
		if f.links() != "" || d.ok("ps", "-aq") != "" {
			t.Errorf("%s: left: %q, containers %q", version, f.links(), d.ok("ps", "-aq"))
		}
	}
}

// TestACNICallThatIsKilledLeavesNothing kills the plugin at many moments of ADD: what was made by then goes with the
// next GC at the latest.
func TestACNICallThatIsKilledLeavesNothing(t *testing.T) {
	d := startDaemon(t)
	plugin := filepath.Join(d.dir, "usernet-cni")
	if err := os.Symlink(daemonProgram, plugin); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net1", "type": "usernet-cni", "socket": %q,
		"cni.dev/valid-attachments": []}`, d.socket)
	call := func(ctx context.Context, environ ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, plugin)
		cmd.Env, cmd.Stdin = append(environ, "CNI_PATH="+d.dir), strings.NewReader(conf)
		return cmd.CombinedOutput()
	}
	d.ok("network", "create", "net1")
	var all []foreign
	for i := range 16 {
		f := startForeign(d)
		all = append(all, f)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(5+10*i)*time.Millisecond)
		_, _ = call(ctx, "CNI_COMMAND=ADD", "CNI_CONTAINERID=c"+strconv.Itoa(i), "CNI_IFNAME=eth0",
			"CNI_NETNS=/proc/"+strconv.Itoa(f.pid)+"/ns/net")
		cancel()
	}
	eventually(t, func() error { // a call that was killed may still be on its way
		if out, err := call(t.Context(), "CNI_COMMAND=GC"); err != nil {
			return fmt.Errorf("GC: %w: %s", err, out)
		}
		for i, f := range all {
			if left := f.links(); left != "" {
				return fmt.Errorf("call %d has left %q", i, left)
			}
		}
		if left := d.ok("ps", "-aq"); left != "" {
			return fmt.Errorf("containers are left: %q", left)
		}
		return nil
	})
}
