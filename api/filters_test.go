package api

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/network"
)

func TestFiltersAreReadInBothForms(t *testing.T) {
	for text, want := range map[string]string{
		``:                            "",
		`{"name":["a","b"]}`:          "a b",
		`{"name":{"a":true}}`:         "a",
		`{"name":"a"}`:                "invalid filters",
		`{`:                           "invalid filters",
		`[]`:                          "invalid filters",
		`{"name":{"a":{"b":true}}}`:   "invalid filters",
		`{"name":null}`:               "",
		`{"name":[],"label":["x=1"]}`: "",
	} {
		r := httptest.NewRequest("GET", "/?"+url.Values{"filters": {text}}.Encode(), nil)
		f, err := readFilters(r)
		got := strings.Join(f["name"], " ")
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.HasPrefix(got, want) || want == "") {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestContainerFilters(t *testing.T) {
	c := &network.Container{
		ID:        strings.Repeat("ab", 32),
		Name:      "web",
		Status:    network.Exited,
		ExitCode:  3,
		Labels:    map[string]string{"team": "a"},
		Exposed:   []network.PortProto{{Port: 80, Proto: network.TCP}, {Port: 53, Proto: network.UDP}},
		Ports:     []network.PortBinding{{Port: 80, Proto: network.TCP}},
		Endpoints: []*network.Endpoint{{Network: "mynet", NetworkID: strings.Repeat("cd", 32)}},
	}
	for _, test := range []struct {
		key, value string
		want       bool
	}{
		{"name", "we", true}, {"name", "^/web$", true}, {"name", "^web$", true}, {"name", "^eb", false},
		{"name", "(", false},
		{"id", "abab", true}, {"id", "cd", false}, {"status", "exited", true}, {"status", "running", false},
		{"exited", "3", true}, {"exited", "0", false},
		{"label", "team", true}, {"label", "team=a", true}, {"label", "team=b", false}, {"label", "x", false},
		{"network", "mynet", true}, {"network", "cdcd", true}, {"network", "other", false},
		{"expose", "80", true}, {"expose", "53", false}, {"expose", "53/udp", true}, {"publish", "80/tcp", true},
		{"publish", "53/udp", false},
		{"ancestor", "busybox", false}, {"volume", "v", false},
		{"is-task", "true", false},
	} {
		if got := (filters{test.key: {test.value}}).matchContainer(c); got != test.want {
			t.Errorf("%s=%s: %v", test.key, test.value, got)
		}
	}
	if !(filters{"status": {"running", "exited"}, "label": {"team=a"}}).matchContainer(c) {
		t.Error("any value of a key, and each key")
	}
	if (filters{"status": {"exited"}, "label": {"team=a", "x"}}).matchContainer(c) {
		t.Error("all labels have to match")
	}
}

func TestEventFilters(t *testing.T) {
	connect := Event{
		Type:       "network",
		Action:     "connect",
		ID:         "n1id",
		Attributes: map[string]string{"name": "mynet", "container": "c1id", "type": "bridge"},
	}
	start := Event{
		Type:       "container",
		Action:     "start",
		ID:         "c1id",
		Attributes: map[string]string{"name": "web", "team": "a"},
	}
	for _, test := range []struct {
		key, value             string
		wantConnect, wantStart bool
	}{
		{"type", "network", true, false}, {"event", "start", false, true}, {"network", "mynet", true, false},
		{"network", "n1", true, false},
		{"container", "c1id", true, true}, {"container", "web", false, true}, {"label", "team=a", false, true},
		{"image", "busybox", false, false},
		{"scope", "local", true, true}, {"scope", "swarm", false, false},
	} {
		f := filters{test.key: {test.value}}
		if f.matchEvent(connect) != test.wantConnect || f.matchEvent(start) != test.wantStart {
			t.Errorf("%s=%s: connect %v, start %v", test.key, test.value, f.matchEvent(connect), f.matchEvent(start))
		}
	}

	// As Docker's daemon does it: docker events --filter event=health_status.
	health := Event{Type: "container", Action: "health_status: unhealthy", ID: "c1id"}
	for value, want := range map[string]bool{
		"health_status": true, "health_status: unhealthy": true, "health_status: healthy": false,
		"health": false, "start": false,
	} {
		if f := (filters{"event": {value}}); f.matchEvent(health) != want {
			t.Errorf("event=%s: %v, want %v", value, !want, want)
		}
	}
}

func TestTimes(t *testing.T) {
	now := time.Now()
	for text, want := range map[string]time.Time{
		"":                          {},
		"1136073600":                time.Unix(1136073600, 0),
		"1136073600.5":              time.Unix(1136073600, 500_000_000),
		"1136073600.000000001":      time.Unix(1136073600, 1),
		"2006-01-02T15:04:05Z":      time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC),
		"2006-01-02T15:04:05.5Z":    time.Date(2006, 1, 2, 15, 4, 5, 500_000_000, time.UTC),
		"2006-01-02T15:04:05+01:00": time.Date(2006, 1, 2, 14, 4, 5, 0, time.UTC),
		"2006-01-02T15:04:05":       time.Date(2006, 1, 2, 15, 4, 5, 0, time.Local),
		"2006-01-02T15:04":          time.Date(2006, 1, 2, 15, 4, 0, 0, time.Local),
		"2006-01-02":                time.Date(2006, 1, 2, 0, 0, 0, 0, time.Local),
		"10m":                       now.Add(-10 * time.Minute),
		"1h30m":                     now.Add(-90 * time.Minute),
		"-2s":                       now.Add(2 * time.Second),
	} {
		got, err := ParseTime(text)
		if err != nil || got.Sub(want).Abs() > time.Minute || !strings.ContainsAny(text, "hms") && !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "2006-13-01", "10 m", "1.5.2", "x.5", "--1h"} {
		if got, err := ParseTime(text); err == nil {
			t.Errorf("%q was taken as %v", text, got)
		}
	}
}

func TestVersions(t *testing.T) {
	for _, test := range []struct {
		a, b  string
		older bool
	}{{"1.9", "1.24", true}, {"1.24", "1.9", false}, {"1.24", "1.24", false}, {"1.52", "2.0", true},
		{"1.100", "1.52", false}} {
		if older(test.a, test.b) != test.older {
			t.Errorf("%s is older than %s: %v", test.a, test.b, !test.older)
		}
	}
}

func TestFilterByHealth(t *testing.T) {
	for _, test := range []struct {
		health *network.Health
		want   string
	}{
		{nil, "none"},
		{&network.Health{Status: network.HealthStarting}, "starting"},
		{&network.Health{Status: network.HealthHealthy}, "healthy"},
		{&network.Health{Status: network.HealthUnhealthy}, "unhealthy"},
	} {
		for _, v := range []string{"none", "starting", "healthy", "unhealthy"} {
			if got := (filters{"health": {v}}).matchHealth(test.health); got != (v == test.want) {
				t.Errorf("health=%s, where it is %s: %t", v, test.want, got)
			}
		}
	}
}
