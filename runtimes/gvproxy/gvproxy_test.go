package gvproxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// fake is a daemon's published ports.
type fake struct{ bound []api.Published }

func (f *fake) Ports(context.Context, string) ([]api.Published, error) { return f.bound, nil }

func (f *fake) PortsAdd(_ context.Context, _ string, add []network.PortBinding) ([]api.Published, error) {
	for _, b := range add {
		if !b.HostIP.IsValid() {
			b.HostIP = netip.IPv4Unspecified()
		}
		f.bound = append(f.bound, api.Published{Host: netip.AddrPortFrom(b.HostIP, b.HostPort), Port: b.Port,
			Proto: b.Proto})
	}
	return f.bound, nil
}

func (f *fake) PortsRemove(_ context.Context, _ string, gone []network.PortBinding) error {
	f.bound = slices.DeleteFunc(f.bound, func(p api.Published) bool { return slices.Contains(gone, p.Binding()) })
	return nil
}

func TestForwarderAnswersAsGvproxyDoes(t *testing.T) {
	machine := &network.Container{ID: "vm", Endpoints: []*network.Endpoint{{
		IPv4: netip.MustParsePrefix("192.168.127.2/24"), MAC: network.MAC{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}}}}
	srv := httptest.NewServer((&forwarder{ports: &fake{}, machine: machine}).handler())
	defer srv.Close()
	for _, test := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/services/forwarder/all", "", 200, "[]"},
		{"POST", "/services/forwarder/expose", `{"local":"127.0.0.1:6443","remote":"192.168.127.2:443","protocol":"tcp"}`, 200, ""},
		{"POST", "/services/forwarder/expose", `{"local":"127.0.0.1:6443","remote":"192.168.127.2:443"}`, 500,
			"proxy already running for tcp on 127.0.0.1:6443"},
		{"POST", "/services/forwarder/expose", `{"local":":8080","remote":":80","protocol":"udp"}`, 200, ""},
		{"GET", "/services/forwarder/all", "", 200,
			`[{"local":"127.0.0.1:6443","remote":"192.168.127.2:443","protocol":"tcp"},` +
				`{"local":"0.0.0.0:8080","remote":"192.168.127.2:80","protocol":"udp"}]`},
		{"POST", "/services/forwarder/unexpose", `{"local":"127.0.0.1:6443","protocol":"tcp"}`, 200, ""},
		{"POST", "/services/forwarder/unexpose", `{"local":"127.0.0.1:6443","protocol":"tcp"}`, 500, "proxy not found"},
		{"POST", "/services/forwarder/unexpose", `{"local":":8080","protocol":"tcp"}`, 500, "proxy not found"},
		{"POST", "/services/forwarder/unexpose", `{"local":":8080","protocol":"udp"}`, 200, ""},
		{"GET", "/services/forwarder/all", "", 200, "[]"},
		{"GET", "/services/forwarder/expose", "", 400, "post only"},
		{"POST", "/services/forwarder/expose", `{`, 500, "unexpected EOF"},
		{"POST", "/services/forwarder/expose", `{"local":":1"}`, 500, "remote"},
		{"POST", "/services/forwarder/expose", `{"local":"127.0.0.1","remote":":1"}`, 500, "ADDRESS:PORT"},
		{"POST", "/services/forwarder/expose", `{"local":":99999","remote":":1"}`, 500, "no port"},
		{"POST", "/services/forwarder/expose", `{"local":":1","remote":"192.168.127.3:1"}`, 500, "not the virtual machine's"},
		{"POST", "/services/forwarder/expose", `{"local":"/a","remote":"/b","protocol":"unix"}`, 500, "by SSH"},
		{"GET", "/leases", "", 200, `{"192.168.127.2":"5a:94:ef:e4:0c:ee"}`},
		{"GET", "/services/dhcp/leases", "", 200, `{"192.168.127.2":"5a:94:ef:e4:0c:ee"}`},
		{"GET", "/stats", "", 404, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), test.method, srv.URL+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != test.status || !strings.Contains(string(b), test.want) {
			t.Errorf("%s %s %s: %d %s, want %d %s", test.method, test.path, test.body, answer.StatusCode, b,
				test.status,
				test.want)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Setenv("USERNET_NETWORK", "")
	t.Setenv("USERNET_NAME", "")
	for _, test := range []struct{ args, want string }{
		// As podman machine calls it.
		{"-mtu 1500 -ssh-port 41211 -listen-qemu unix:///run/vm.sock -pid-file /run/gvproxy.pid", ""},
		{"--listen unix:///a --listen unix:///b --listen-vfkit unixgram:///run/vm.sock --debug", ""},
		{"-listen-bess unixpacket:///x -usernet-network lan -usernet-name vm1 -usernet-mac 52:54:00:00:00:01", ""},
		{"", "give one of"},
		{"-listen-qemu unix:///a -listen-vfkit unixgram:///b", "give one of"},
		{"-listen-qemu tcp://127.0.0.1:1", "give unix://PATH"},
		{"-listen-vfkit unix:///a", "give unixgram://PATH"},
		{"-listen tcp://127.0.0.1:1 -listen-qemu unix:///a", "other users"},
		{"-listen-vpnkit unix:///a", "framing of its own"},
		{"-forward-sock /a -listen-qemu unix:///a", "SSH"},
		{"-listen-qemu unix:///a -usernet-mac x", "MAC"},
		{"-listen-qemu unix:///a -ssh-port 65536", "65535"},
		{"-listen-qemu unix:///a b", "not expected"},
	} {
		o, err := parse(strings.Fields(test.args), io.Discard)
		switch {
		case test.want == "" && (err != nil || o.socket.Kind == ""):
			t.Errorf("%s: %+v, %v", test.args, o, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %s", test.args, err, test.want)
		}
	}
}

// TestHelpSaysWhatIsRefused: who reads it learns what to do instead.
func TestHelpSaysWhatIsRefused(t *testing.T) {
	var help strings.Builder
	_, _ = parse([]string{"--help"}, &help)
	for name, instead := range refused {
		if !strings.Contains(help.String(), "-"+name+" value\n    \trefused: "+instead) {
			t.Errorf("the help says nothing of -%s:\n%s", name, &help)
		}
	}
}

// TestAWrongOptionIsOneLine, and not one below all the options that there are.
func TestAWrongOptionIsOneLine(t *testing.T) {
	for _, option := range []string{"-nonsense", "-pcap=/x", "-ssh-port=x"} {
		var said strings.Builder
		_, err := parse([]string{option}, &said)
		text := fmt.Sprint(err)
		if err == nil || said.Len() > 0 || strings.Contains(text, "\n") || !strings.Contains(text, "-help") {
			t.Errorf("%s: %v, and %q", option, err, &said)
		}
	}
}
