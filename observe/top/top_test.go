package top

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/ports"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// samples are two, a second apart: web receives 2 kB/s by its interface and 1 MB/s past it, db sends what web receives.
func samples() (before, after *api.Sample) {
	flow := api.Flow{Container: "web", Network: "n", Proto: "tcp", Direction: "out", State: "established",
		Path:   "bypass",
		Inside: netip.MustParseAddrPort("10.1.0.2:4000"), Outside: netip.MustParseAddrPort("192.0.2.7:443"),
		Created: start}
	port := api.ContainerPort{Container: "web", Published: api.Published{
		Host: netip.MustParseAddrPort("0.0.0.0:8080"), Port: 80, Proto: ports.TCP}}
	make := func(seconds uint64) *api.Sample {
		f := flow
		f.BytesIn = seconds * 1e6
		return &api.Sample{
			Time: start.Add(time.Duration(seconds) * time.Second),
			Interfaces: []api.InterfaceCounts{
				{Container: "db", Network: "n", Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.3")},
					BytesOut: 2000 * seconds},
				{Container: "web", Network: "n", BytesIn: 2000 * seconds, Drops: map[string]uint64{"mac": 5 * seconds}},
			},
			Flows: []api.Flow{f},
			Questions: []api.DNSQuestion{{Time: start, Container: "web", Name: "example.test.", Type: "A",
				Rcode: "NOERROR", Source: "cache", Duration: time.Millisecond,
				Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}},
			Ports: []api.ContainerPort{port},
		}
	}
	return make(1), make(2)
}

func shown(s *State, width, height int) string {
	var b strings.Builder
	for _, l := range s.Render(width, height) {
		b.WriteString(l.Text + "\n")
	}
	return b.String()
}

func sampled() *State {
	s := New()
	before, after := samples()
	s.Update(before)
	s.Update(after)
	return s
}

func press(s *State, keys ...rune) (a Action) {
	for _, k := range keys {
		a = s.Key(k)
	}
	return a
}

func TestViews(t *testing.T) {
	for _, test := range []struct {
		keys []rune
		want []string
	}{
		{nil, []string{"[1 Containers]", "2 containers  1 flow  in 1.0MB/s  out 2.0kB/s", "web         n", "1.0M"}},
		{[]rune{'2'}, []string{"example.test:443", "bypass", "established"}},
		{[]rune{'3'}, []string{"example.test", "NOERROR", "cache", "1.0"}},
		{[]rune{'4'}, []string{"mac", "5", "10"}},
		{[]rune{'5'}, []string{"0.0.0.0:8080", "80", "tcp"}},
		{[]rune{KeyBackTab}, []string{"[5 Ports]"}},
		{[]rune{'?'}, []string{"close the selected flow"}},
		{[]rune{'/', 'd', 'b', KeyEnter}, []string{"filter: db", "db  "}},
		{[]rune{'/', 'z', KeyEnter}, []string{"nothing"}},
		{[]rune{'p'}, []string{"PAUSED"}},
		{[]rune{KeyEnter}, []string{"[2 Flows]", " of web"}},
		{[]rune{'2', 'k'}, []string{"close the connection of web to example.test:443? y/n"}},
		{[]rune{'k'}, []string{"press 2"}},
	} {
		s := sampled()
		press(s, test.keys...)
		got := shown(s, 100, 20)
		for _, want := range test.want {
			if !strings.Contains(got, want) {
				t.Errorf("after %q: %q is missing in\n%s", test.keys, want, got)
			}
		}
	}
}

func TestKeys(t *testing.T) {
	if !press(sampled(), 'q').Quit || press(sampled(), 'z').Quit {
		t.Error("q ends, and nothing else")
	}
	if a := press(sampled(), '2', 'k', 'y'); a.Close == nil || a.Close.Container != "web" {
		t.Errorf("y closes nothing: %+v", a)
	}
	if a := press(sampled(), '2', 'k', 'n'); a.Close != nil {
		t.Error("n closes")
	}
	s := sampled()
	if first := s.rows()[0].container; first != "web" {
		t.Errorf("sorted by what comes in, %s is the first", first)
	}
	press(s, 'r')
	if first := s.rows()[0].container; first != "db" {
		t.Errorf("the other way round %s is the first", first)
	}
	press(s, '<', '<')
	if first := s.rows()[0].container; first != "db" {
		t.Errorf("sorted by name %s is the first", first)
	}
	press(s, KeyEnter, KeyEscape)
	if s.view != Containers || s.container != "" {
		t.Error("Esc does not go back")
	}
	press(s, 'p')
	s.Update(&api.Sample{Time: start.Add(time.Hour)})
	if len(s.rows()) != 2 {
		t.Error("a paused view changes")
	}
}

// TestTheSortedColumnIsShown: on a narrow terminal other columns are left out.
func TestTheSortedColumnIsShown(t *testing.T) {
	for v := range views {
		s := sampled()
		s.show(v)
		for range tables[v].columns {
			s.Key('s')
			if got := shown(s, MinWidth, 10); !strings.Contains(got, tables[v].columns[s.sortBy[v]].name+"*") {
				t.Errorf("%s: no column is marked as what is sorted by:\n%s", v, got)
			}
		}
	}
}

// TestLinesFit renders each view at each size.
func TestLinesFit(t *testing.T) {
	s := sampled()
	for i := range 50 {
		s.now.Questions = append(s.now.Questions, api.DNSQuestion{Container: fmt.Sprint("container-", i),
			Name: strings.Repeat("long-label.", 20) + "\x1b[2J", Type: "AAAA", Source: "upstream 192.0.2.53",
			Time: start})
	}
	for v := range views {
		for _, width := range []int{1, 59, 60, 61, 80, 132, 300} {
			for _, height := range []int{1, 5, 24, 80} {
				s.show(v)
				press(s, KeyEnd)
				lines := s.Render(width, height)
				if width >= MinWidth && height > fixed && len(lines) != height {
					t.Errorf("%v at %dx%d has %d lines", v, width, height, len(lines))
				}
				for _, l := range lines {
					if utf8.RuneCountInString(l.Text) > width || strings.ContainsRune(l.Text, 0x1b) {
						t.Errorf("%v at %dx%d: %q", v, width, height, l.Text)
					}
				}
			}
		}
	}
}

func TestAmounts(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 999: "999", 1000: "1.0k", 9990: "10.0k", 15300: "15k", 2e6: "2.0M",
		999999: "1.0M", 3.4e13: "34T"} {
		if got := amount(n); got != want && !(n == 9990 && got == "10k") {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
}

func TestPlainSample(t *testing.T) {
	got := sampled().Sample()
	for _, want := range []string{"Containers\n", "Flows\n", "DNS\n", "Drops\n", "Ports\n", "example.test:443"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}
