package test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMuslResolver is Alpine's resolver, which is not glibc's: it asks for A and AAAA at once, and takes "no such name"
// for one of them as the answer to both.
func TestMuslResolver(t *testing.T) {
	t.Parallel()
	lookup := filepath.Join(t.TempDir(), "lookup")
	if out, err := exec.Command("musl-gcc", "-static", "-O1", "-o", lookup,
		"testdata/lookup.c").CombinedOutput(); err != nil {
		t.Fatalf("musl-gcc: %v\n%s", err, out)
	}
	d := startDaemon(t)
	d.ok("network", "create", "mynet")             // IPv4 only: AAAA is an empty answer, not "no such name"
	d.ok("network", "create", "--ipv6", "dualnet") // both
	d.idle("web", "--network", "mynet", "--network-alias", "www")
	d.idle("box", "--network", "mynet")
	d.idle("dual", "--network", "dualnet")
	d.idle("dualbox", "--network", "dualnet")
	d.idle("searching", "--network", "mynet", "--dns-option", "ndots:1")
	for _, test := range []struct{ container, name, want string }{
		{"box", "web", d.address("web")},
		{"box", "www", d.address("web")},
		{"box", "web.mynet", d.address("web")},
		{"box", "www.example.test", host4 + "\n" + host6},
		{"box", "localhost", "127.0.0.1"},
		{"dualbox", "dual", d.address("dual") + "\n" + d.address6("dual")},
		{"searching", "www.example.test", host4 + "\n" + host6},
		{"searching", "peer", peer4}, // peer.example.test, by the host's search domain
		{"searching", "web", d.address("web")},
	} {
		r := d.exec(test.container, lookup, test.name)
		for _, want := range strings.Split(test.want, "\n") {
			if r.code != 0 || !strings.Contains(r.stdout, want+"\n") {
				t.Errorf("%s looks up %s: want %q: %v", test.container, test.name, test.want, r)
				break
			}
		}
	}
	if r := d.exec("box", lookup, "nobody"); r.code != 1 || !strings.Contains(r.stdout, "does not resolve") {
		t.Errorf("an unknown name: %v", r)
	}
}
