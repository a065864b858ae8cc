package cni

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// TestWhoBindsPublishedPorts: a port that the runtime binds and the plugin binds too would fail in one of them.
func TestWhoBindsPublishedPorts(t *testing.T) {
	for name, test := range map[string]struct {
		publish, env string
		want         binder
	}{
		"by itself":             {"", "", bindDaemon},
		"Podman":                {"", "_CONTAINERS_ROOTLESS_UID", bindRuntime},
		"nerdctl":               {"auto", "ROOTLESSKIT_STATE_DIR", bindRootlessKit},
		"Podman, but it is to":  {"always", "_CONTAINERS_ROOTLESS_UID", bindDaemon},
		"nerdctl, but it is to": {"always", "ROOTLESSKIT_STATE_DIR", bindDaemon},
		"nerdctl, never":        {"never", "ROOTLESSKIT_STATE_DIR", bindRuntime},
		"never":                 {"never", "", bindRuntime},
	} {
		c, err := parse([]byte(fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "n", "publish": %q,
			"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "hostIP": "0.0.0.0"}]}}`, test.publish)))
		if err != nil {
			t.Fatal(err)
		}
		if b := c.binder(func(k string) string { return map[string]string{test.env: "1"}[k] }); b != test.want {
			t.Errorf("%s: binder %d, want %d", name, b, test.want)
		}
		ports, err := c.ports()
		if err != nil || len(ports) != 1 || ports[0].HostIP.IsValid() || ports[0].Proto != "tcp" {
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
		"Podman": {
			"", "IgnoreUnknown=1;K8S_POD_NAME=web;MAC=02:00:00:00:00:09;IP=10.0.0.9",
			"10.0.0.9 invalid IP 02:00:00:00:00:09",
		},
		"nerdctl": {
			`"runtimeConfig": {"ips": ["10.0.0.9/24", "fd00::9"], "mac": "02:00:00:00:00:09"}`, "",
			"10.0.0.9 fd00::9 02:00:00:00:00:09",
		},
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

// TestNameServersAndAliases come by the keys of CNI's conventions, by those that other parts of CNI and Podman have for
// them, and from the configuration where the runtime says nothing.
func TestNameServersAndAliases(t *testing.T) {
	for conf, want := range map[string]string{
		`"runtimeConfig": {"dns": {"servers": ["192.0.2.1"], "searches": ["a.example"],
			"options": ["ndots:3"]}}`: "[192.0.2.1] [a.example] [ndots:3] []",
		`"runtimeConfig": {"dns": {"nameservers": ["192.0.2.1"], "search": ["a.example"],
			"options": ["ndots:3"]}}`: "[192.0.2.1] [a.example] [ndots:3] []",
		`"dns": {"nameservers": ["192.0.2.2"]}`: "[192.0.2.2] [] [] []",
		`"dns": {"nameservers": ["192.0.2.2"]},
			"runtimeConfig": {"dns": {"servers": ["192.0.2.1"]}}`: "[192.0.2.1] [] [] []",
		`"runtimeConfig": {"aliases": ["shop", "store"]}`:                   "[] [] [] [shop store]",
		`"runtimeConfig": {"aliases": {"n": ["shop"], "other": ["store"]}}`: "[] [] [] [shop]",
	} {
		c, err := parse([]byte(`{"cniVersion": "1.0.0", "name": "n", ` + conf + `}`))
		if err != nil {
			t.Fatal(err)
		}
		e, err := c.endpoint(&skel.CmdArgs{}, envArgs{})
		if err != nil {
			t.Fatal(err)
		}
		dns := c.dns()
		if got := fmt.Sprint(dns.Nameservers, dns.Search, dns.Options, e.Aliases); got != want {
			t.Errorf("%s: %s, want %s", conf, got, want)
		}
	}
}

// TestNamesOfContainers: nerdctl's is in the bundle that its hook runs in, if that is the container's.
func TestNamesOfContainers(t *testing.T) {
	const id = "default-0123456789abcdef"
	bundle := func(namespace string) fstest.MapFS {
		return fstest.MapFS{"config.json": {Data: []byte(
			`{"annotations": {"nerdctl/name": "web", "nerdctl/namespace": "` + namespace + `"}}`)}}
	}
	nerdctl := envArgs{NERDCTL_CNI_DHCP_HOSTNAME: "0123456789ab"}
	for name, test := range map[string]struct {
		env    envArgs
		bundle fstest.MapFS
		want   string
	}{
		"Podman":              {envArgs{K8S_POD_NAME: "web"}, nil, "web"},
		"nerdctl":             {nerdctl, bundle("default"), "web"},
		"nerdctl, elsewhere":  {nerdctl, bundle("other"), "0123456789ab"},
		"nerdctl, no bundle":  {nerdctl, nil, "0123456789ab"},
		"a file without JSON": {nerdctl, fstest.MapFS{"config.json": {Data: []byte("no")}}, "0123456789ab"},
		"nobody":              {envArgs{}, bundle("default"), "default-0123"},
	} {
		if got := containerName(id, test.env, test.bundle); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"cniVersion": "1.0.0", "name": "n",
		"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}], "ips": ["::"]}}`))
	f.Add([]byte(`{"name": "n", "prevResult": {"cniVersion": "0.3.1", "ips": [{}]}}`))
	f.Fuzz(func(_ *testing.T, text []byte) {
		c, err := parse(text)
		if err != nil {
			return
		}
		_, _ = c.networkSpec()
		_, _ = c.endpoint(&skel.CmdArgs{}, envArgs{})
		_, _ = c.ports()
	})
}
