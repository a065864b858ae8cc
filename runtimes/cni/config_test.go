package cni

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// TestWhoBindsPublishedPorts: a port that the runtime binds and the plugin binds too would fail in one of them.
func TestWhoBindsPublishedPorts(t *testing.T) {
	for name, test := range map[string]struct {
		publish, env string
		want         int
	}{
		"by itself":            {"", "", 1},
		"Podman":               {"", "_CONTAINERS_ROOTLESS_UID", 0},
		"nerdctl":              {"auto", "ROOTLESSKIT_STATE_DIR", 0},
		"Podman, but it is to": {"always", "_CONTAINERS_ROOTLESS_UID", 1},
		"never":                {"never", "", 0},
	} {
		c, err := parse([]byte(fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "n", "publish": %q,
			"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "hostIP": "0.0.0.0"}]}}`, test.publish)))
		if err != nil {
			t.Fatal(err)
		}
		ports, err := c.ports(func(k string) string { return map[string]string{test.env: "1"}[k] })
		if err != nil || len(ports) != test.want || test.want == 1 &&
			(ports[0].HostIP.IsValid() || ports[0].Proto != "tcp") {
			t.Errorf("%s: %+v, %v", name, ports, err)
		}
	}
}

// TestEndpoints has what Podman gives in CNI_ARGS, what nerdctl gives as capabilities, and both.
func TestEndpoints(t *testing.T) {
	for name, test := range map[string]struct {
		conf, args string
		want       string // addresses and MAC, or an error's words
	}{
		"Podman":     {``, "IgnoreUnknown=1;K8S_POD_NAME=web;MAC=02:00:00:00:00:09;IP=10.0.0.9", "10.0.0.9 invalid IP 02:00:00:00:00:09"},
		"nerdctl":    {`"runtimeConfig": {"ips": ["10.0.0.9/24", "fd00::9"], "mac": "02:00:00:00:00:09"}`, "", "10.0.0.9 fd00::9 02:00:00:00:00:09"},
		"args":       {`"args": {"cni": {"ips": ["10.0.0.9"]}}`, "", "10.0.0.9 invalid IP "},
		"agreeing":   {`"runtimeConfig": {"ips": ["10.0.0.9"]}`, "IP=10.0.0.9", "10.0.0.9 invalid IP "},
		"two of one": {`"runtimeConfig": {"ips": ["10.0.0.9", "10.0.0.10"]}`, "", "one of each family"},
	} {
		conf := `{"cniVersion": "1.0.0", "name": "n"`
		if test.conf != "" {
			conf += ", " + test.conf
		}
		c, err := parse([]byte(conf + "}"))
		if err != nil {
			t.Fatal(err)
		}
		var env envArgs
		env.IgnoreUnknown = true
		if err := types.LoadArgs(test.args, &env); err != nil {
			t.Fatal(err)
		}
		e, err := c.endpoint(&skel.CmdArgs{IfName: "eth0"}, env)
		got := fmt.Sprintf("%v %v %v", e.IPv4, e.IPv6, e.MAC)
		if err != nil && !strings.Contains(err.Error(), test.want) || err == nil && got != test.want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"cniVersion": "1.0.0", "name": "n", "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}], "ips": ["::"]}}`))
	f.Add([]byte(`{"name": "n", "prevResult": {"cniVersion": "0.3.1", "ips": [{}]}}`))
	f.Fuzz(func(_ *testing.T, text []byte) {
		c, err := parse(text)
		if err != nil {
			return
		}
		_, _ = c.networkSpec()
		_, _ = c.endpoint(&skel.CmdArgs{}, envArgs{})
		_, _ = c.ports(func(string) string { return "" })
	})
}
