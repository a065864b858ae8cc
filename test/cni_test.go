package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	plugincni "github.com/usernet/usernet/runtimes/cni"
)

// cni is a runtime's side of the Container Network Interface: its own library, which calls the plugin as runtimes do.
type cni struct {
	*libcni.CNIConfig
	d    *daemon
	list *libcni.NetworkConfigList
}

// newCNI links the plugin, and has a network of the given version whose plugin has more keys.
func newCNI(d *daemon, version, keys string) *cni {
	d.t.Helper()
	bin := filepath.Join(d.dir, "cni")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Symlink(daemonProgram, filepath.Join(bin, "usernet-cni")); err != nil && !errors.Is(err, os.ErrExist) {
		d.t.Fatal(err)
	}
	list, err := libcni.NetworkConfFromBytes([]byte(fmt.Sprintf(`{"cniVersion": %q, "name": "net1", "plugins": [{
		"type": "usernet-cni", "socket": %q, "subnet": "10.66.0.0/24",
		"capabilities": {"portMappings": true, "ips": true, "mac": true, "aliases": true, "dns": true}%s}]}`, version, d.socket, keys)))
	if err != nil {
		d.t.Fatal(err)
	}
	return &cni{libcni.NewCNIConfigWithCacheDir([]string{bin}, filepath.Join(d.dir, "cnicache"), nil), d, list}
}

// attachment asks for an interface in f's namespace.
func (c *cni) attachment(f foreign, id, ifname string, args map[string]any) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: id, NetNS: "/proc/" + strconv.Itoa(f.pid) + "/ns/net", IfName: ifname,
		CapabilityArgs: args}
}

// add has to succeed.
func (c *cni) add(rt *libcni.RuntimeConf) *current.Result {
	c.d.t.Helper()
	r, err := c.AddNetworkList(c.d.t.Context(), c.list, rt)
	if err != nil {
		c.d.t.Fatal(err)
	}
	result, err := current.NewResultFromResult(r)
	if err != nil {
		c.d.t.Fatal(err)
	}
	return result
}

// serveIn has a server in f's namespace until the test ends.
func serveIn(f foreign, address string) {
	f.d.t.Helper()
	startServer(f, address, "addr")
	eventually(f.d.t, func() error {
		if r := f.run(helper, "tcpdial", "127.0.0.1"+address); r.code != 0 {
			return fmt.Errorf("no server yet: %v", r)
		}
		return nil
	})
}

// startServer starts one of a mode, and does not wait for it.
func startServer(f foreign, address, mode string) {
	f.d.t.Helper()
	cmd := exec.Command("nsenter", "--preserve-credentials", "--user", "--net", "--target", strconv.Itoa(f.pid), helper,
		"tcpserve", address, mode)
	cmd.Env = f.d.environ()
	if err := cmd.Start(); err != nil {
		f.d.t.Fatal(err)
	}
	f.d.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// wantCode fails the test unless err is CNI's error with a code, and says words.
func wantCode(t *testing.T, err error, code uint, words string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(err.Error(), words) {
		t.Errorf("error %v, want CNI's code %d and %q", err, code, words)
	}
}

// TestCNI has each verb, in each version of the specification.
func TestCNI(t *testing.T) {
	d := startDaemon(t)
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			d := d.in(t)
			c := newCNI(d, version, "")
			if _, err := c.ValidateNetworkList(t.Context(), c.list); err != nil {
				t.Fatal(err)
			}
			port := freePort()
			web, other := startForeign(d), startForeign(d)
			rt := c.attachment(web, "web-"+version, "eth7", map[string]any{
				"portMappings": []map[string]any{{"hostPort": port, "containerPort": 80, "protocol": "tcp"}},
				"ips":          []string{"10.66.0.9/24"}, "mac": "02:00:00:00:00:09",
				"aliases": map[string][]string{"net1": {"shop"}},
			})
			result := c.add(rt)
			if len(result.Interfaces) != 1 || result.Interfaces[0].Name != "eth7" || result.Interfaces[0].Mac !=
				"02:00:00:00:00:09" || result.Interfaces[0].Sandbox != rt.NetNS {
				t.Errorf("interfaces: %+v", result.Interfaces)
			}
			if len(result.IPs) != 1 || result.IPs[0].Address.String() != "10.66.0.9/24" ||
				!result.IPs[0].Gateway.Equal(net.IPv4(10, 66, 0, 1)) {
				t.Errorf("addresses: %+v", result.IPs)
			}
			if len(result.Routes) != 1 || result.Routes[0].Dst.String() != "0.0.0.0/0" || len(result.DNS.Nameservers) !=
				1 || result.DNS.Nameservers[0] != "127.0.0.11" {
				t.Errorf("routes %+v, DNS %+v", result.Routes, result.DNS)
			}
			if have := web.run("ip", "addr", "show", "eth7").stdout; !strings.Contains(have, "10.66.0.9/24") ||
				!strings.Contains(have, "02:00:00:00:00:09") {
				t.Errorf("in the namespace:\n%s", have)
			}
			again := c.add(rt) // a runtime may call twice
			if len(again.IPs) != 1 || again.IPs[0].Address.String() != "10.66.0.9/24" {
				t.Errorf("again: %+v", again.IPs)
			}
			serveIn(web, ":80")
			second := c.attachment(other, "other-"+version, "eth0", nil)
			c.add(second)
			for _, at := range []string{"shop:80", "web-" + version + ":80"} {
				name, _, _ := strings.Cut(at, ":")
				if r := other.run("dig", "+short", "+time=5", "@127.0.0.11", name); strings.TrimSpace(r.stdout) !=
					"10.66.0.9" {
					t.Errorf("name %s: %v", name, r)
				}
			}
			if r := other.run(helper, "tcpdial", "10.66.0.9:80"); r.code != 0 {
				t.Errorf("one container to the other: %v", r)
			}
			if r := d.command(helper, "tcpdial", fmt.Sprintf("127.0.0.1:%d", port)); r.code != 0 {
				t.Errorf("the published port: %v", r)
			}
			if version != "0.3.1" {
				if err := c.CheckNetworkList(t.Context(), c.list, rt); err != nil {
					t.Errorf("CHECK: %v", err)
				}
				wantCode(t, c.CheckNetworkList(t.Context(), c.list,
					&libcni.RuntimeConf{ContainerID: rt.ContainerID, NetNS: second.NetNS, IfName: rt.IfName}),
					types.ErrInvalidNetNS, "not the network namespace")
			}
			if version == "1.1.0" {
				if err := c.GetStatusNetworkList(t.Context(), c.list); err != nil {
					t.Errorf("STATUS: %v", err)
				}
				keep := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: rt.ContainerID,
					IfName: rt.IfName}}}
				if err := c.GCNetworkList(t.Context(), c.list, keep); err != nil {
					t.Errorf("GC: %v", err)
				}
				if web.links() != "eth7" || other.links() != "" {
					t.Errorf("after GC of all but one: %q and %q", web.links(), other.links())
				}
			}
			for range 2 {
				for _, one := range []*libcni.RuntimeConf{rt, second} {
					if err := c.DelNetworkList(t.Context(), c.list, one); err != nil {
						t.Errorf("DEL: %v", err)
					}
					one.NetNS = "" // what nerdctl gives, and an engine that has lost the namespace
				}
			}
			if web.links() != "" || other.links() != "" || d.ok("ps", "-aq") != "" {
				t.Errorf("after DEL: %q, %q, containers %q", web.links(), other.links(), d.ok("ps", "-aq"))
			}
		})
	}
}

// TestCNISeesTheInterface changes it behind the daemon's back: CHECK looks into the namespace where it is called as
// runtimes call it, in the user namespace that owns it. Pods of one name are told apart.
func TestCNISeesTheInterface(t *testing.T) {
	d := startDaemon(t)
	c := newCNI(d, "1.0.0", "")
	f, other := startForeign(d), startForeign(d)
	for id, netns := range map[string]foreign{"pod-one": f, "pod-two": other} {
		rt := c.attachment(netns, id, "eth0", nil)
		rt.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", id}, {"K8S_POD_NAME", "web"}}
		c.add(rt)
	}
	if r := f.run("dig", "+short", "+time=5", "@127.0.0.11", "web"); len(strings.Fields(r.stdout)) != 2 {
		t.Errorf("both pods of a name: %v", r)
	}
	prev, err := c.GetNetworkListCachedResult(c.list, c.attachment(f, "pod-one", "eth0", nil))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "net1", "type": "usernet-cni",
		"socket": d.socket, "prevResult": prev})
	if err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(f.pid)
	for _, step := range []struct{ command, want string }{
		{"true", ""},
		{"ip link set eth0 down", "eth0 is down"},
		{"ip link set eth0 up", ""},
		{"ip addr flush dev eth0", "has not the address 10.66.0."},
		{"ip link del eth0", "not there any more"},
	} {
		if r := f.run("sh", "-c", step.command); r.code != 0 {
			t.Fatal(r)
		}
		cmd := exec.Command("nsenter", "--preserve-credentials", "--user", "--target", pid,
			filepath.Join(d.dir, "cni/usernet-cni"))
		cmd.Env = append(d.environ(), "CNI_COMMAND=CHECK", "CNI_CONTAINERID=pod-one", "CNI_IFNAME=eth0",
			"CNI_PATH=/nowhere", "CNI_NETNS=/proc/"+pid+"/ns/net")
		cmd.Stdin = strings.NewReader(string(text))
		out, err := cmd.Output()
		if (err == nil) != (step.want == "") || !strings.Contains(string(out), step.want) {
			t.Errorf("CHECK after %q: %v, %s, want %q", step.command, err, out, step.want)
		}
	}
}

// TestCNIOutlivesTheDaemon kills it between ADD and DEL, and has DEL and STATUS asked while there is none.
func TestCNIOutlivesTheDaemon(t *testing.T) {
	d := startDaemon(t)
	c := newCNI(d, "1.1.0", "")
	f := startForeign(d)
	rt := c.attachment(f, "one", "eth0", nil)
	c.add(rt)
	ends := startForeign(d)
	lost := c.attachment(ends, "lost", "eth0", nil)
	c.add(lost)
	d.stop(syscall.SIGKILL)
	wantCode(t, c.GetStatusNetworkList(t.Context(), c.list), types.ErrLimitedConnectivity, "usernet serve")
	_, err := c.AddNetworkList(t.Context(), c.list, c.attachment(f, "two", "eth1", nil))
	wantCode(t, err, types.ErrTryAgainLater, "usernet serve")
	if err := syscall.Kill(ends.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := c.DelNetworkList(t.Context(), c.list, lost); err != nil {
		t.Errorf("DEL without a daemon: %v", err)
	}
	d.start()
	eventually(t, func() error {
		if have := d.ok("ps", "-a", "--format", "{{.Names}}"); have != "one" {
			return fmt.Errorf("the next daemon has %q", have)
		}
		return nil
	})
	eventually(t, func() error { return c.CheckNetworkList(t.Context(), c.list, rt) })
	if r := f.run("ping", "-c1", "-W5", "10.66.0.1"); r.code != 0 {
		t.Errorf("after the restart: %v", r)
	}
	if err := c.GCNetworkList(t.Context(), c.list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}); err !=
		nil {
		t.Error(err)
	}
	eventually(t, func() error {
		if left := f.links(); left != "" {
			return fmt.Errorf("after GC: %s", left)
		}
		return nil
	})
}

// TestCNIRefuses has configurations and requests that cannot be met: CNI's code, a clear sentence, and nothing left.
func TestCNIRefuses(t *testing.T) {
	d := startDaemon(t)
	f := startForeign(d)
	d.ok("network", "create", "open")
	for name, test := range map[string]struct {
		keys  string
		args  map[string]any
		netns string
		code  uint
		words string
	}{
		"an address elsewhere": {args: map[string]any{"ips": []string{"10.77.0.9"}},
			code: types.ErrInvalidNetworkConfig, words: "10.77.0.9"},
		"no address": {args: map[string]any{"ips": []string{"ten"}}, code: types.ErrInvalidNetworkConfig, words: `"ten"`},
		"no MAC":     {args: map[string]any{"mac": "zz"}, code: types.ErrInvalidNetworkConfig, words: "zz"},
		"a protocol": {args: map[string]any{"portMappings": []map[string]any{{"hostPort": 80, "containerPort": 80,
			"protocol": "sctp"}}},
			code: types.ErrUnsupportedField, words: "only tcp and udp"},
		"a port": {args: map[string]any{"portMappings": []map[string]any{{"hostPort": 0,
			"containerPort": 80}}}, code: types.ErrInvalidNetworkConfig, words: "1 to 65535"},
		"an IPAM plugin":  {keys: `, "ipam": {"type": "host-local"}`, code: types.ErrUnsupportedField, words: "host-local"},
		"no such network": {keys: `, "network": "nonesuch", "create": false`, code: types.ErrInvalidNetworkConfig, words: "usernet network create nonesuch"},
		"a gateway alone": {keys: `, "network": "other", "subnet": "", "gateway": "10.1.2.3"`, code: types.ErrInvalidNetworkConfig, words: "subnet"},
		"publish":         {keys: `, "publish": "perhaps"`, code: types.ErrInvalidNetworkConfig, words: "perhaps"},
		"an internal network": {keys: `, "network": "open", "subnet": "", "internal": true`,
			code: types.ErrInvalidNetworkConfig, words: "not internal"},
		"another subnet": {keys: `, "network": "open"`, code: types.ErrInvalidNetworkConfig, words: "none of its subnets"},
		"no network": {keys: `, "network": "none", "subnet": ""`, code: types.ErrInvalidNetworkConfig,
			words: "nothing can be attached"},
		"no namespace": {netns: "/proc/self/status", code: types.ErrInvalidNetNS, words: "is not a namespace"},
		"no file":      {netns: "/nonexistent", code: types.ErrInvalidNetNS, words: "/nonexistent"},
		"the gateway's address": {args: map[string]any{"ips": []string{"10.66.0.1"}}, code: plugincni.CodeTaken,
			words: "network net1, address 10.66.0.1: Address already in use"},
		"an egress rule": {keys: `, "allowEgress": ["::::"]`, code: types.ErrInvalidNetworkConfig, words: "::::"},
	} {
		t.Run(name, func(t *testing.T) {
			d := d.in(t)
			c := newCNI(d, "1.1.0", test.keys)
			rt := c.attachment(f, "one", "eth0", test.args)
			if test.netns != "" {
				rt.NetNS = test.netns
			}
			_, err := c.AddNetworkList(t.Context(), c.list, rt)
			wantCode(t, err, test.code, test.words)
			if f.links() != "" || d.ok("ps", "-aq") != "" {
				t.Errorf("left: interfaces %q, containers %q", f.links(), d.ok("ps", "-aq"))
			}
		})
	}
}

// TestCNIChained has another plugin's interface in the result, and a second attachment of the same container.
func TestCNIChained(t *testing.T) {
	d := startDaemon(t)
	c := newCNI(d, "1.0.0", `, "network": "second", "subnet": "10.67.0.0/24"`)
	first := newCNI(d, "1.0.0", "")
	f := startForeign(d)
	first.add(first.attachment(f, "one", "eth0", nil))
	before := `{"cniVersion": "1.0.0", "interfaces": [{"name": "lo"}], "ips": [{"address": "127.0.0.1/8", "interface": 0}], "dns": {}}`
	var conf map[string]any
	if err := json.Unmarshal(c.list.Plugins[0].Bytes, &conf); err != nil {
		t.Fatal(err)
	}
	conf["prevResult"], conf["name"], conf["cniVersion"] = json.RawMessage(before), "net2", "1.0.0"
	text, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := libcni.NetworkPluginConfFromBytes(text)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.AddNetwork(t.Context(), plugin, c.attachment(f, "one", "eth1", nil))
	if err != nil {
		t.Fatal(err)
	}
	result, err := current.NewResultFromResult(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Interfaces) != 2 || result.Interfaces[0].Name != "lo" || result.Interfaces[1].Name != "eth1" ||
		len(result.IPs) != 2 || *result.IPs[1].Interface != 1 {
		t.Errorf("the result: %+v", result)
	}
	if f.links() != "eth0 eth1" {
		t.Errorf("interfaces %q", f.links())
	}
}
