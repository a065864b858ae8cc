package test

import (
	"fmt"
	"strings"
	"testing"
)

// attackHeldDNSReplies has four containers shape their loopback interfaces so that replies from port 53 do not leave,
// and ask without end, over UDP and over TCP. On another network, every name is still resolved.
func attackHeldDNSReplies(t *testing.T) {
	d := startDaemon(t, "--dns-cache", "0")
	d.ok("network", "create", "others")
	d.idle("victim", "--network", "others")
	shape := `set -e
tc qdisc add dev lo root handle 1: htb default 10
tc class add dev lo parent 1: classid 1:10 htb rate 10gbit
tc class add dev lo parent 1: classid 1:20 htb rate 8bit burst 1500 cburst 1500
tc filter add dev lo parent 1: protocol ip u32 match ip sport 53 0xffff flowid 1:20
echo shaped
exec "$0" dnsflood 127.0.0.11:53 example.test
`
	for i := range 4 {
		name := fmt.Sprint("attacker", i)
		d.container(name, nil, "sh", "-c", shape, helper)
		d.logged(name, "ok")
	}
	eventually(t, func() error { // the sockets are full
		if out := d.ok("info"); strings.Contains(out, "dns_unsent: 0\n") || !strings.Contains(out, "dns_unsent: ") {
			return fmt.Errorf("no reply is held up: %s", out)
		}
		return nil
	})
	for i := range 20 {
		for _, transport := range []string{"+notcp", "+tcp"} {
			r := d.exec("victim", "dig", transport, "+tries=3", "+time=30", fmt.Sprintf("victim%d.example.test", i))
			if !strings.Contains(r.stdout, "status: NXDOMAIN") { // what the world's resolver says of it
				t.Fatalf("question %d %s: %v", i, transport, r)
			}
		}
	}
	d.looksUp(t, "victim", "www.example.test", host4)
}
