package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/events"

	"github.com/usernet/usernet/network"
)

func TestFilesOfVariables(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(path, []byte("\ufeffA=1\n# no\n\n\tB=x # part of it\nC\nD=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("C", "from outside")
	list, err := readKeyValues([]string{path}, []string{"A=2", "NOT_SET"})
	if err != nil {
		t.Fatal(err)
	}
	got := lastOfEach(resolveEnv(list))
	if want := []string{"A=2", "B=x # part of it", "C=from outside", "D="}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, bad := range []string{"A B=c\n", "=x\n"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readKeyValues([]string{path}, nil); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := readKeyValues([]string{"/nonexistent"}, nil); err == nil {
		t.Error("a file that is not there is read")
	}
}

func TestNetworkFlags(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags netFlags
		want  string // networks with what was asked for, or an error
	}{
		{"nothing", netFlags{}, "bridge"},
		{"default", netFlags{networks: []string{"default"}}, "bridge"},
		{"two", netFlags{networks: []string{"a", "b"}, aliases: []string{"x"}, ip: "10.1.0.9"}, "a x 10.1.0.9, b"},
		{"long", netFlags{networks: []string{"name=a,alias=x,alias=y", "name=b,ip=10.1.0.9"}}, "a x,y, b 10.1.0.9"},
		{"mixed", netFlags{networks: []string{"name=a,alias=x"}, ip: "10.1.0.9"}, "a x 10.1.0.9"},
		{"twice", netFlags{networks: []string{"name=a,ip=10.1.0.8"}, ip: "10.1.0.9"},
			"cannot specify both --ip and per-network IPv4 address"},
		{"modes", netFlags{networks: []string{"a", "container:b"}}, "cannot attach both user-defined and non-user-defined network-modes"},
		{"family", netFlags{ip6: "10.1.0.9"}, "invalid IPv6 address: 10.1.0.9"},
		{"unspecified", netFlags{ip: "0.0.0.0"}, "invalid IPv4 address: 0.0.0.0"},
		{"link-local", netFlags{linkLocal: []string{"10.1.0.9"}}, "invalid link-local IP address: 10.1.0.9"},
		{"group MAC", netFlags{mac: "01:00:00:00:00:01"}, "group address"},
	} {
		var spec network.ContainerSpec
		got := ""
		if err := test.flags.apply(&spec); err != nil {
			got = err.Error()
		}
		var list []string
		for _, e := range spec.Networks {
			s := e.Network
			if len(e.Aliases) > 0 {
				s += " " + strings.Join(e.Aliases, ",")
			}
			if e.IPv4.IsValid() {
				s += " " + e.IPv4.String()
			}
			list = append(list, s)
		}
		if got == "" {
			got = strings.Join(list, ", ")
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestPoolFlags(t *testing.T) {
	for want, f := range map[string]poolFlags{
		"every ip-range or gateway must have a corresponding subnet": {gateways: []string{"10.1.0.1"}},
		"multiple overlapping subnet configuration":                  {subnets: []string{"10.1.0.0/16", "10.1.2.0/24"}},
		"cannot configure multiple gateways": {subnets: []string{"10.1.0.0/24", "10.2.0.0/24"},
			gateways: []string{"10.1.0.1", "10.1.0.2"}},
		"cannot configure multiple ranges": {subnets: []string{"10.1.0.0/24", "10.2.0.0/24"},
			ranges: []string{"10.1.0.0/26", "10.1.0.64/26"}},
		"no matching subnet for gateway 10.3.0.1": {subnets: []string{"10.1.0.0/24"},
			gateways: []string{"10.3.0.1"}},
		"no matching subnet for aux-address 10.3.0.1": {subnets: []string{"10.1.0.0/24"}, aux: []string{"a=10.3.0.1"}},
		"invalid CIDR block notation":                 {subnets: []string{"10.1.0.0"}},
		"give NAME=ADDRESS":                           {subnets: []string{"10.1.0.0/24"}, aux: []string{"10.1.0.7"}},
	} {
		if _, err := f.pools(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", f, err, want)
		}
	}
	f := poolFlags{
		subnets:  []string{"10.1.0.0/24", "fd01::/64"},
		gateways: []string{"fd01::9", "10.1.0.9"},
		ranges:   []string{"10.1.0.64/26"},
		aux:      []string{"a=10.1.0.7"},
	}
	list, err := f.pools()
	if err != nil || len(list) != 2 || list[0].Gateway.String() != "10.1.0.9" || list[0].Range.String() !=
		"10.1.0.64/26" || list[1].Gateway.String() != "fd01::9" ||
		list[0].Aux["a"].String() != "10.1.0.7" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestEventLine(t *testing.T) {
	m := events.Message{
		Type:   "network",
		Action: "create",
		Actor:  events.Actor{ID: "ab", Attributes: map[string]string{"type": "bridge", "name": "x"}},
	}
	if got := eventLine(m); !strings.HasSuffix(got, "network create ab (name=x, type=bridge)") {
		t.Errorf("%q", got)
	}
	m.Actor.Attributes = nil
	if got := eventLine(m); !strings.HasSuffix(got, " network create ab") {
		t.Errorf("%q", got)
	}
}

func TestTablesFitTheTerminal(t *testing.T) {
	rows := []string{
		"CONTAINER ID\tCOMMAND\tCREATED\tSTATUS\tPORTS\tNAMES",
		"0123456789ab\t\"busybox httpd -f -p…\"\t2 minutes ago\tUp 2 minutes\t0.0.0.0:8080->80/tcp, [::]:8080->80/tcp\tweb",
		"ab0123456789\t\"sleep 1000\"\t3 weeks ago\tExited (0) 2 weeks ago\t\tjob",
	}
	text := strings.Join(rows, "\n") + "\n"
	for _, test := range []struct {
		width int
		want  string
	}{
		{0, text},
		{200, text},
		{120, `CONTAINER ID COMMAND CREATED STATUS PORTS NAMES
0123456789ab "busybox httpd -f… 2 minutes ago Up 2 minutes 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp web
ab0123456789 "sleep 1000" 3 weeks ago Exited (0) 2 week… job
`},
		{90, `CONTAINER ID COMMAND CREATED STATUS PORTS NAMES
0123456789ab "busybox ht… 2 minutes a… Up 2 minutes 0.0.0.0:8080->80/tcp, web
[::]:8080->80/tcp
ab0123456789 "sleep 1000" 3 weeks ago Exited (0) … job
`},
		{60, `CONTAINER ID STATUS PORTS NAMES
0123456789ab Up 2 mi… 0.0.0.0:8080->80/tcp, web
[::]:8080->80/tcp
ab0123456789 Exited … job
`},
	} {
		got := fit(text, test.width)
		if test.width > 0 && test.width < 200 {
			if w := newGrid(got).total(); w > test.width {
				t.Errorf("on %d columns it has %d", test.width, w)
			}
			var lines []string
			for line := range strings.Lines(got) {
				lines = append(lines, strings.Join(
					strings.FieldsFunc(line, func(r rune) bool { return r == '\t' || r == '\n' }), " "))
			}
			got = strings.Join(lines, "\n") + "\n"
		}
		if got != test.want {
			t.Errorf("on %d columns:\n%s\nwant\n%s", test.width, got, test.want)
		}
	}
	if got := fit(text, 5); !strings.Contains(got, "0.0.0.0:8080->80/tcp,") || !strings.Contains(got, "web") {
		t.Errorf("on too few columns: %q", got)
	}
}
