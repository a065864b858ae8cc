package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestUsersAreNumbers(t *testing.T) {
	for _, c := range []struct {
		user     string
		uid, gid int // -1: an error
	}{
		{"0", 0, 0},
		{"1000", 1000, 1000},
		{"1000:0", 1000, 0},
		{"0:1000", 0, 1000},
		{"65534:65533", 65534, 65533},
		{"", -1, -1},
		{":", -1, -1},
		{":5", -1, -1},
		{"5:", -1, -1},
		{"root", -1, -1},
		{"5:users", -1, -1},
		{"-1", -1, -1},
		{"5:-1", -1, -1},
		{"99999999999999999999", -1, -1},
		{"0x10", -1, -1},
		{"1000x", -1, -1},
		{"12 34", -1, -1},
		{"5:6:7", -1, -1},
		{"4294967294", 4294967294, 4294967294},
		{"4294967295", -1, -1}, // no id at all
		{"4294967296", -1, -1},
	} {
		uid, gid, err := userIDs(c.user)
		if (err != nil) != (c.uid < 0) || err == nil && (uid != c.uid || gid != c.gid) {
			t.Errorf("%q: %d, %d, %v", c.user, uid, gid, err)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%q", c.user)) {
			t.Errorf("%q is not in %q", c.user, err)
		}
	}
}

func TestSpecsDecideOnTerminalAndNetwork(t *testing.T) {
	other := &Target{Pid: 1}
	for _, c := range []struct {
		name             string
		spec             Spec
		inside, ownsANet bool
	}{
		{"the caller's files", Spec{}, false, true},
		{"a terminal with the caller's files", Spec{TTY: true}, false, true},
		{"a root file system", Spec{Rootfs: "/root"}, false, true},
		{"a terminal with a root file system", Spec{TTY: true, Rootfs: "/root"}, true, true},
		{"the host's network", Spec{HostNetwork: true}, false, false},
		{"another's network", Spec{JoinNet: other}, false, false},
	} {
		if c.spec.terminalInside() != c.inside || c.spec.ownsNet() != c.ownsANet {
			t.Errorf("%s: terminal inside %v, network of its own %v", c.name, c.spec.terminalInside(), c.spec.ownsNet())
		}
	}
}

// TestMessagesArriveAsTheyWereSent: what one process encodes, another decodes.
func TestMessagesArriveAsTheyWereSent(t *testing.T) {
	spec := Spec{
		Command:     []string{"sh", "-c", "echo \"$X\"\n", "", "\u00e9"},
		Env:         []string{"A=", "B=1=2"},
		WorkingDir:  "/w",
		Rootfs:      "/r",
		Hostname:    "h",
		Domainname:  "d",
		User:        "1:2",
		UserNS:      UserNSRange,
		TTY:         true,
		HostNetwork: true,
		JoinNet:     &Target{Pid: 7, NetNS: "/n", UserNS: "/u"},
		Limits:      &Limits{Capabilities: math.MaxUint64 - 1, NoNewPrivileges: true, Filter: []byte{0, 1, 255}},
		NoProc:      true,
		Devices:     []string{"/dev/x"},
		Hidden:      []string{"/run/x"},

		AllSystemPaths: true,
	}
	request := Request{
		Add: []Interface{{
			Name:      "eth0",
			MAC:       net.HardwareAddr{2, 0, 0, 0, 0, 1},
			MTU:       1500,
			Addrs:     []netip.Prefix{netip.MustParsePrefix("10.0.0.2/8"), netip.MustParsePrefix("fd00::2/64")},
			LinkLocal: []netip.Addr{netip.MustParseAddr("169.254.0.1")},
			Offload:   true,
			IPv6:      true,
			Temporary: true,
		}},
		Remove:        []string{"eth1"},
		DefaultRoutes: []Route{{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.0.0.1"), "eth0"}},
		Routes:        []Route{{Dst: netip.MustParsePrefix("fd01::/64"), Interface: "eth0"}}, // on the link
		Local:         []netip.Addr{netip.MustParseAddr("127.0.0.11")},
		Listen:        []netip.AddrPort{netip.MustParseAddrPort("[::1]:80")},
		DNSStub:       netip.MustParseAddrPort("127.0.0.11:53"),
		SockDiag:      true,
	}
	for _, sent := range []any{
		&startRequest{spec, "chosen", []string{"hosts"}},
		&startReply{Error: "why", Code: 126},
		&startReply{SetUp: true},
		&execRequest{Spec: spec, Root: 9, OneID: true},
		&request,
		&Request{},
		&answer{Files: []string{"eth0", fileDNSPacket}},
		&helperRequest{Target: *spec.JoinNet, Role: roleAgent},
		&helperReply{Stderr: "text", Dev: math.MaxUint64, Ino: 1, Missing: true},
		&openReply{Inside: Namespaces{User: []NamespaceID{{1, 2}, {3, math.MaxUint64}}, Net: NamespaceID{5, 6}}},
		&userCommand{"/bin/sh", spec.Command, spec.Env, spec.Limits},
		&Files{"nameserver 127.0.0.11\n", "127.0.0.1 localhost\n", "h"},
	} {
		b, err := json.Marshal(sent)
		if err != nil {
			t.Errorf("%T: %v", sent, err)
			continue
		}
		got := reflect.New(reflect.TypeOf(sent).Elem()).Interface()
		if err := json.Unmarshal(b, got); err != nil || !reflect.DeepEqual(got, sent) {
			t.Errorf("%+v, want %+v: %v", got, sent, err)
		}
	}
}

func TestOnlyGivenInterfacesLeaveTheNamespaceAlone(t *testing.T) {
	given, made := Interface{Given: true}, Interface{}
	route := []Route{{}}
	for _, c := range []struct {
		name string
		r    Request
		want bool
	}{
		{"nothing", Request{}, false},
		{"a given one", Request{Add: []Interface{given}}, true},
		{"two given ones", Request{Add: []Interface{given, given}}, true},
		{"one that is made", Request{Add: []Interface{made}}, false},
		{"one of each", Request{Add: []Interface{given, made}}, false},
		{"a route", Request{Add: []Interface{given}, Routes: route}, false},
		{"a default route", Request{Add: []Interface{given}, DefaultRoutes: route}, false},
	} {
		if got := c.r.onlyGiven(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestOnlySocketsLeaveTheRoutesAlone(t *testing.T) {
	ports := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}
	for _, c := range []struct {
		name string
		r    Request
		want bool
	}{
		{"nothing, which takes default routes away", Request{}, false},
		{"connections at an address", Request{Listen: ports}, true},
		{"datagrams at an address", Request{ListenPacket: ports}, true},
		{"sockets that are not connected", Request{StreamSockets: 1}, true},
		{"sockets for datagrams", Request{DatagramSockets: 1}, true},
		{"what listens", Request{SockDiag: true}, true},
		{"a removal besides", Request{SockDiag: true, Remove: []string{"eth0"}}, false},
		{"an interface besides", Request{SockDiag: true, Add: []Interface{{}}}, false},
		{"a route besides", Request{Listen: ports, Routes: []Route{{}}}, false},
		{"a default route besides", Request{Listen: ports, DefaultRoutes: []Route{{}}}, false},
	} {
		if got := c.r.onlySockets(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestFilesHaveTheTextsOfTheirNames(t *testing.T) {
	for _, c := range []struct {
		files Files
		names []string
		texts []string
	}{
		{Files{}, nil, nil},
		{Files{Hosts: "h"}, []string{"hosts"}, []string{"h"}},
		{Files{Hostname: "name"}, []string{"hostname"}, []string{"name\n"}},
		{Files{ResolvConf: "r", Hosts: "h", Hostname: "name"}, []string{"resolv.conf", "hosts", "hostname"},
			[]string{"r", "h", "name\n"}},
	} {
		names := c.files.names()
		var texts []string
		for _, name := range names {
			texts = append(texts, c.files.text(name))
		}
		if !slices.Equal(names, c.names) || !slices.Equal(texts, c.texts) {
			t.Errorf("%+v: %q, %q", c.files, names, texts)
		}
	}
	if text := (Files{Hosts: "h"}).text("hostname") + (Files{Hosts: "h"}).text("passwd"); text != "" {
		t.Errorf("files that have no text: %q", text)
	}
}

func TestWrittenFilesReplaceTexts(t *testing.T) {
	dir := t.TempDir()
	p := &Process{etc: etcFiles{files: map[string]*os.File{}}}
	for _, name := range []string{"hosts", "resolv.conf"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		p.etc.files[name] = f
	}
	for _, c := range []struct {
		write               Files
		hosts, resolv, what string
	}{
		{Files{Hosts: "a long text\n", ResolvConf: "r\n"}, "a long text\n", "r\n", "the first"},
		{Files{Hosts: "short\n"}, "short\n", "r\n", "a shorter one, and none"},
		{Files{Hostname: "h"}, "short\n", "r\n", "one for a file that is not there"},
	} {
		if err := p.WriteFiles(c.write); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		hosts, err1 := os.ReadFile(filepath.Join(dir, "hosts"))
		resolv, err2 := os.ReadFile(filepath.Join(dir, "resolv.conf"))
		if err := errors.Join(err1, err2); err != nil || string(hosts) != c.hosts || string(resolv) != c.resolv {
			t.Errorf("%s: %q, %q, %v", c.what, hosts, resolv, err)
		}
	}
	_ = p.etc.files["hosts"].Close()
	err := p.WriteFiles(Files{Hosts: "x", ResolvConf: "last"})
	if err == nil || !strings.Contains(err.Error(), "/etc/hosts") || strings.Contains(err.Error(), "resolv") {
		t.Errorf("a file that cannot be written to: %v", err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "resolv.conf")); string(text) != "last" {
		t.Errorf("the other one has %q", text)
	}
	p.etc.close()
	if err := p.WriteFiles(Files{Hosts: "x"}); err != nil {
		t.Errorf("after the end: %v", err)
	}
}
