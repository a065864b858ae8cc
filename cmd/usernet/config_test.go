package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestPrecedence has the same flags said in several ways: the command line goes first, then the environment, the file,
// and what usernet takes by itself.
func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	if err := os.Mkdir(filepath.Join(dir, "usernet"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := `[serve]
log-level = "error"
log-format = "json"
dns-cache = 7
ipv6 = true
dns-domain = ["a.test=192.0.2.1", "b.test=192.0.2.2"]
limit-memory = "3m"
peer-timeout = "5s"
`
	if err := os.WriteFile(filepath.Join(dir, "usernet", "config.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("USERNET_LOG_FORMAT", "text")
	t.Setenv("USERNET_LOG_LEVEL", "warn")
	t.Setenv("USERNET_DNS_DOMAIN", "c.test=192.0.2.3  d.test=192.0.2.4")
	var o serveOptions
	c := new(cobra.Command)
	f := o.flags(c)
	if err := c.ParseFlags([]string{"--log-level", "debug"}); err != nil {
		t.Fatal(err)
	}
	if err := o.configure(f); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintln(o.level, o.format, o.dnsCache, o.ipv6, o.dnsDomains, o.perContainer.Memory, o.peerTimeout)
	if want := "debug text 7 true [c.test=192.0.2.3 d.test=192.0.2.4] 3145728 5s\n"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestNearestKey(t *testing.T) {
	words := []string{"log-level", "log-format", "dns", "ipv6"}
	for word, want := range map[string]string{"log-levle": "log-level", "log_format": "log-format", "dn": "dns",
		"ipv": "ipv6", "nothing-like-it": "", "": ""} {
		if got := nearest(word, words); got != want {
			t.Errorf("%q is near %q, want %q", word, got, want)
		}
	}
}

// TestPlacesOfMistakes finds lines and columns, those of keys in tables of tables too.
func TestPlacesOfMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"[serve]\nipv6 = true\n\n  x = 1\n":         "f:4:3: ",
		"serve.x = 1\n":                             "f:1:1: ",
		"serve = 1\n":                               "f:1:1: serve is a table",
		"networks = 1\n":                            "f:1:1: networks is a list",
		"[[networks]]\nname = 'a'\n [[networks]]\n": "f:3:4: ",
		"[[networks]]\nname = 'a'\n[[networks]]\nname = 'a'\n":               "f:3:3: network \"a\" is here twice",
		"[network-options]\nusernet.x = 1.5\n":                               "f:2:1: ",
		"[[networks]]\nname = 'a'\nopt = { a = [] }\n":                       "f:3:1: ",
		"[serve]\nlog-level = 'a'\nlog-level = 'b'\n":                        "f:3:",
		"[[networks]]\nname = 'a'\n\n[[networks]]\nname = 'b'\nipv6 = 'x'\n": "f:6:1: ",
	} {
		c, err := parseConfig("f", []byte(text))
		if err == nil {
			var o serveOptions
			err = o.applyConfig(c, o.flags(new(cobra.Command)))
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
