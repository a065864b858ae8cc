package overlay

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A router is FRR on host 3: zebra and bgpd, which have kernel devices and routes for what they learn.
type router struct {
	t     testing.TB
	dir   string
	zebra *exec.Cmd
	bgpd  *exec.Cmd
}

// Where the router is, and a container of its fabric behind it.
const (
	routerNS   = "/run/netns/xh-h3"
	routerAddr = "192.0.2.3"
	leafNS     = "/run/netns/xh-leaf"
)

// frrConfig is bgpd's: a route reflector for hosts 1 and 2, which announces all VNIs of the kernel. Sessions with host
// 2 are signed.
const frrConfig = `
log stdout
router bgp 65000
 bgp router-id 192.0.2.3
 no bgp default ipv4-unicast
 neighbor 192.0.2.1 remote-as 65000
 neighbor 192.0.2.1 passive
 neighbor 192.0.2.2 remote-as 65000
 neighbor 192.0.2.2 passive
 neighbor 192.0.2.2 password fabric
 address-family ipv4 unicast
  neighbor 192.0.2.1 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor 192.0.2.1 activate
 exit-address-family
 address-family l2vpn evpn
  neighbor 192.0.2.1 activate
  neighbor 192.0.2.1 route-reflector-client
  neighbor 192.0.2.2 activate
  neighbor 192.0.2.2 route-reflector-client
  advertise-all-vni
 exit-address-family
`

// newRouter starts it for the length of a test. VNI 42 has a bridge with 10.44.0.193 and fd44::c1 behind it.
func newRouter(t testing.TB) *router {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "uo-frr-") // not t.TempDir, which other users cannot enter
	if err != nil {
		t.Fatal(err)
	}
	r := &router{t: t, dir: dir}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	frr, err := user.Lookup("frr")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(frr.Uid)
	gid, _ := strconv.Atoi(frr.Gid)
	if err := os.Chown(r.dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"zebra.conf": "log stdout\n", "bgpd.conf": frrConfig, "vtysh.conf": ""} {
		path := filepath.Join(r.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r.makeFabric()
	r.zebra = r.serve("zebra")
	r.startBGP()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s\n%s", r.try("show bgp summary"), r.try("show bgp l2vpn evpn"))
			text, _ := os.ReadFile(filepath.Join(r.dir, "bgpd.log"))
			t.Logf("bgpd's log:\n%s", tail(string(text), 40))
		}
		r.end(r.bgpd, syscall.SIGTERM)
		r.end(r.zebra, syscall.SIGTERM)
	})
	r.shows("show bgp neighbors", "192.0.2.1", "192.0.2.2")
	return r
}

// makeFabric makes the kernel's devices.
func (r *router) makeFabric() {
	r.t.Helper()
	addNamespace(r.t, "xh-leaf", routerNS, "leaf0")
	for _, line := range []string{
		"link add br42 type bridge",
		"link add vx42 mtu 1450 type vxlan id 42 local 192.0.2.3 dstport 4789 nolearning",
		"link set vx42 master br42 addrgenmode none",
		"link set vx42 type bridge_slave neigh_suppress on learning off",
		"link add leaf0 mtu 1450 type veth peer name eth0 netns xh-leaf",
		"link set leaf0 master br42 up",
		"link set vx42 up", "link set br42 up",
	} {
		rootIn(r.t, routerNS, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	r.t.Cleanup(func() {
		rootIn(r.t, routerNS, "ip", "link", "del", "vx42")
		rootIn(r.t, routerNS, "ip", "link", "del", "br42")
	})
	for _, line := range []string{
		"link set lo up", "link set eth0 mtu 1450 up", "addr add 10.44.0.193/24 dev eth0",
		"addr add fd44::c1/64 dev eth0 nodad",
	} {
		rootIn(r.t, leafNS, append([]string{"ip"}, strings.Fields(line)...)...)
	}
}

// serve starts one of FRR's daemons.
func (r *router) serve(name string, args ...string) *exec.Cmd {
	r.t.Helper()
	in := func(file string) string { return filepath.Join(r.dir, file) }
	args = append([]string{
		"--net=" + routerNS, "/usr/lib/frr/" + name, "-f", in(name + ".conf"), "-i", in(name + ".pid"), "-z",
		in("zserv.api"), "--vty_socket", r.dir,
	}, args...)
	log, err := os.OpenFile(in(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("nsenter", args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	return cmd
}

func (r *router) startBGP() {
	r.t.Helper()
	r.bgpd = r.serve("bgpd", "-p", "179", "-l", routerAddr)
}

func (r *router) end(cmd *exec.Cmd, signal os.Signal) {
	_ = cmd.Process.Signal(signal)
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait()
}

// try asks vtysh.
func (r *router) try(command string) string {
	out, err := exec.Command("nsenter", "--net="+routerNS, "vtysh", "--vty_socket", r.dir, "--config_dir", r.dir, "-c",
		command).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("vtysh: %v: %s", err, out)
	}
	return string(out)
}

// shows waits until vtysh's answer has all words, and none that begins with "!".
func (r *router) shows(command string, words ...string) {
	r.t.Helper()
	eventually(r.t, func() error { return hasWords(r.try(command), words...) })
}

// has waits until a command on the router's host shows words.
func (r *router) has(command string, words ...string) {
	r.t.Helper()
	eventually(r.t, func() error { return hasWords(rootIn(r.t, routerNS, strings.Fields(command)...), words...) })
}

// hasWords says which of the words a text lacks. Those behind "!" it must not have.
func hasWords(text string, words ...string) error {
	for _, w := range words {
		if not, is := strings.CutPrefix(w, "!"); is && strings.Contains(text, not) {
			return fmt.Errorf("%q is still in\n%s", not, text)
		} else if !is && !strings.Contains(text, w) {
			return fmt.Errorf("no %q in\n%s", w, text)
		}
	}
	return nil
}

// session waits until a host's session with the router is up, or is not.
func (h *host) session(up bool) {
	h.t.Helper()
	eventually(h.t, func() error {
		var info struct{ BGP []struct{ Established bool } }
		text := h.ok("info", "--json")
		err := json.Unmarshal([]byte(text), &info)
		if err != nil || len(info.BGP) != 1 || info.BGP[0].Established != up {
			return fmt.Errorf("host %d: the session is not up=%v: %v: %s", h.n, up, err, text)
		}
		return nil
	})
}
