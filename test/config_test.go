package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestConfiguration has the daemon take its flags from a file, the environment and the command line, the last of which
// goes first, and make the networks that the file names.
func TestConfiguration(t *testing.T) {
	d := newDaemon(t)
	config := filepath.Join(d.dir, "config", "usernet", "config.toml")
	if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
		t.Fatal(err)
	}
	text := `[serve]
log-level = "debug"
log-format = "json"
dns-search = ["file.test"]
limit-tcp = 77
confine = "off"

[network-options]
com.docker.network.driver.mtu = 1400

[[networks]]
name = "office"
subnet = "10.61.0.0/24"
gateway = "10.61.0.254"
internal = true
opt = { "com.docker.network.driver.mtu" = 1300 }
label = { team = "a" }

[[networks]]
name = "plain"
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(d.dir, "config"))
	t.Setenv("USERNET_LOG_FORMAT", "text")
	t.Setenv("USERNET_DNS_SEARCH", "environment.test")
	t.Setenv("USERNET_LIMIT_TPC", "5")
	d.flags = []string{"--dns-search", "flag.test"}
	if r := d.try("config", "check"); r.code != 0 || r.stdout != config+": no mistakes\n" ||
		!strings.Contains(r.stderr, "USERNET_LIMIT_TPC of the environment: did you mean USERNET_LIMIT_TCP?") {
		t.Errorf("config check: %v", r)
	}
	d.start()
	unread := "variable=USERNET_LIMIT_TPC instead=USERNET_LIMIT_TCP event=variable-unread"
	if log := d.logText(); !strings.Contains(log, unread) {
		t.Errorf("nobody is told of a variable with a slip: %s", log)
	}
	if log := d.logText(); !strings.Contains(log, "level=") || strings.HasPrefix(log, "{") {
		t.Errorf("the variable does not go before the file: %s", log)
	}
	if out := d.ok("info"); !strings.Contains(out, "Confined: no") {
		t.Errorf("the file does not count: %s", out)
	}
	d.idle("cc", "--network", "plain")
	d.says("search flag.test", "cc", "cat", "/etc/resolv.conf")
	d.says("mtu 1400", "cc", "ip", "link", "show", "eth0")
	out := d.ok("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}} {{.Internal}} "+
		"{{.Labels.team}} {{index .Options \"com.docker.network.driver.mtu\"}}", "office")
	if out != "10.61.0.0/24 10.61.0.254 true a 1300" {
		t.Errorf("the network is %s", out)
	}
	d.ok("network", "create", "--config-only", "--subnet", "10.62.0.0/24", "settings")
	d.stop(syscall.SIGTERM)
	d.start() // the networks are there already
	if names := d.names("network", "ls"); fmt.Sprint(names) != "[bridge host none office plain settings]" {
		t.Errorf("networks: %v", names)
	}
}

// TestMistakesInAConfiguration are told with their place, and keep the daemon from starting.
func TestMistakesInAConfiguration(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	config := filepath.Join(d.dir, "config.toml")
	for name, test := range map[string]struct{ text, want string }{
		"no TOML":         {"[serve\n", ":1:7: "},
		"an unknown part": {"[server]\n", `:1:2: the configuration has no key "server": did you mean "serve"?`},
		"an unknown key": {
			"[serve]\nipv6 = true\nlog-levle = \"info\"\n",
			`:3:1: usernet serve has no key "log-levle": did you mean "log-level"?`,
		},
		"a wrong value": {
			"[serve]\n  limit-tcp = \"many\"\n",
			`:2:3: invalid argument "many" for "--limit-tcp" flag: give a whole number`,
		},
		"a list":             {"[serve]\nlog-level = [\"info\"]\n", ":2:1: log-level: give one value, not a list"},
		"a flag for once":    {"[serve]\ntakeover = true\n", ":2:1: takeover is for one start"},
		"two mistakes":       {"[serve]\nx = 1\ny = 2\n", `:3:1: usernet serve has no key "y"`},
		"a log level":        {"[serve]\nlog-level = \"loud\"\n", "give debug, info, warn or error"},
		"an option":          {"[network-options]\nusernet.egres = \"deny\"\n", ":2:1: unknown option usernet.egres"},
		"an option's value":  {"[network-options]\nusernet.egress = \"maybe\"\n", `:2:1: egress "maybe": give allow or deny`},
		"a network's option": {"[[networks]]\nname = \"a\"\negress = \"maybe\"\n", `:1:3: egress "maybe": give allow`},
		"a network's driver": {"[[networks]]\nname = \"a\"\ndriver = \"token\"\n", `:1:3: there is no network driver "tok`},
		"a nameless network": {"[[networks]]\nsubnet = \"10.0.0.0/24\"\n", ":1:3: a network has no name"},
		"a network's key": {
			"[[networks]]\nname = \"a\"\n[[networks]]\nname = \"b\"\nsubnets = 1\n",
			`:5:1: a network has no key "subnets": did you mean "subnet"?`,
		},
		"a network's value": {"[[networks]]\nname = \"a\"\nsubnet = \"10.0.0.0\"\n", ":1:3: invalid subnet 10.0.0.0"},
	} {
		if err := os.WriteFile(config, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := d.try("config", "check", config); r.code != 1 || !strings.Contains(r.stderr, test.want) {
			t.Errorf("%s: want %q: %v", name, test.want, r)
		}
		if r := d.try("serve", "--config", config, "--socket", d.socket); r.code != 1 ||
			!strings.Contains(r.stderr, test.want) {
			t.Errorf("%s: the daemon: want %q: %v", name, test.want, r)
		}
	}
	text := "[serve]\nlog-level = \"loud\"\ndns = [\"a b\"]\n[[networks]]\nname = \"a\"\nsubnet = \"300.0.0.0/8\"\n[x]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := d.try("config", "check", config)
	lines := strings.Split(r.stderr, "\n")
	for i, want := range []string{":2:1: log level", ":3:1: ", ":4:3: invalid subnet", ":7:2: the configuration has",
		"See: usernet explain the-configuration-is-wrong"} {
		if r.code != 1 || i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Errorf("line %d: want %q: %v", i+1, want, r)
		}
	}
	r = d.try("serve", "--config", config, "--socket", d.socket)
	if first, _, _ := strings.Cut(r.stderr, "\n"); r.code != 1 || !strings.Contains(first, ":4:3: invalid subnet") ||
		!strings.Contains(r.stderr, "See: usernet explain the-configuration-is-wrong") {
		t.Errorf("the daemon: %v", r)
	}
	d.fails("no such file", "config", "check", config+"2")
	d.fails("no such file", "serve", "--config", config+"2")
	if r := d.command("env", "USERNET_LIMIT_TCP=x", usernet, "serve", "--socket", d.socket); r.code != 1 ||
		!strings.Contains(r.stderr, "USERNET_LIMIT_TCP: ") {
		t.Errorf("%v", r)
	}
}
