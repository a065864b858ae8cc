package api

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/network/boltstore"
)

// model answers from a store alone: two networks besides the predefined ones, and two containers.
type model struct {
	modelOnly
	events []Event
}

func newModel(t *testing.T) *Server {
	t.Helper()
	m, err := boltstore.OpenModel(filepath.Join(t.TempDir(), "db"), network.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if _, _, err := m.CreateNetwork(network.NetworkSpec{Name: "mynet",
		Labels: map[string]string{"team": "a"}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.CreateNetwork(network.NetworkSpec{Name: "settings", ConfigOnly: true}); err != nil {
		t.Fatal(err)
	}
	spec := network.ContainerSpec{
		Name:        "web",
		NetworkMode: "mynet",
		Labels:      map[string]string{"team": "a"},
		Ports:       []network.PortBinding{{Port: 80, End: 80, Proto: network.TCP}},
		Exposed:     []network.PortProto{{Port: 80, Proto: network.TCP}},
	}
	for _, name := range []string{"web", "job"} {
		spec.Name = name
		c, _, err := m.CreateContainer(spec)
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.UpdateContainer(c.ID, func(c *network.Container) error {
			c.Status = network.Running
			if name == "job" {
				c.Status, c.ExitCode = network.Exited, 3
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		spec = network.ContainerSpec{}
	}
	now := time.Now()
	return NewServer(model{modelOnly{m: m}, []Event{
		{
			Type:   "network",
			Action: "connect",
			ID:     "n1",
			Attributes: map[string]string{"name": "mynet",
				"container": "c1"},
			Time: now,
		},
		{
			Type:       "container",
			Action:     "start",
			ID:         "c1",
			Attributes: map[string]string{"name": "web", "team": "a"},
			Time:       now,
		},
	}}, slog.New(slog.DiscardHandler))
}

func (model) Published(string) ([]Published, error) { return nil, nil }
func (model) LogPath(string) (string, error)        { return "", nil }
func (model) Info() Info                            { return Info{} }

func (m model) Events(_ context.Context, _, _ time.Time, send func(Event) error) error {
	for _, e := range m.events {
		if err := send(e); err != nil {
			return err
		}
	}
	return nil
}

func (m model) PruneNetworks(_ context.Context, match func(*network.Network) bool) (names []string, err error) {
	for _, n := range m.Networks() {
		if !n.Predefined() && match(n) {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// answer sends a request without a body, and returns status and body.
func answer(s *Server, method, path string, query url.Values) (int, string) {
	r := httptest.NewRequest(method, "http://usernet"+path+"?"+query.Encode(), nil)
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, asOwn(r))
	return w.Code, w.Body.String()
}

// anyText are the parameters that take any text, with what becomes of a text that nothing is called.
var anyText = map[string]string{
	"POST /containers/{ref}/restart signal":         "the daemon refuses unknown signals",
	"POST /usernet/containers/{ref}/restart signal": "the daemon refuses unknown signals",
	"POST /containers/{ref}/stop signal":            "the daemon refuses unknown signals",
	"POST /containers/{ref}/kill signal":            "the daemon refuses unknown signals",
	"POST /usernet/containers/{ref}/stop signal":    "the daemon refuses unknown signals",
	"POST /usernet/containers/{ref}/kill signal":    "the daemon refuses unknown signals",
	"POST /containers/{ref}/rename name":            "the store refuses what is no name",
	"GET /usernet/dns/query name":                   "it is asked for",
	"GET /usernet/dns/query type":                   "the daemon refuses unknown types",
	"GET /usernet/dns/query container":              "404",
	"GET /usernet/flows container":                  "404",
	"GET /usernet/capture container":                "404",
	"GET /usernet/capture network":                  "404",
	"GET /usernet/capture filter":                   "the daemon refuses what is no expression",
	"GET /usernet/attachments prefix":               "keys are of the client's choice",
	"DELETE /usernet/flows proto":                   "404",
	"DELETE /usernet/flows inside":                  "400, once the others are there",
	"DELETE /usernet/flows outside":                 "400, once the others are there",
	"POST /usernet/containers/{ref}/trace to":       "the daemon refuses what is no destination",
	"POST /usernet/containers/{ref}/trace timeout":  "400, once the others are there",
}

// TestEveryParameterIsActedOnOrRefused walks all requests: an unknown parameter, a second value, and a value that is
// not of the parameter's kind are refused by the parameter's name.
func TestEveryParameterIsActedOnOrRefused(t *testing.T) {
	s := newModel(t)
	type request struct {
		pattern string
		query   []parameter
	}
	var all []request
	for _, r := range s.dockerRoutes() {
		all = append(all, request{r.pattern, r.query})
	}
	for _, r := range s.usernetRoutes() {
		all = append(all, request{r.method + " " + r.path, r.query})
	}
	for _, r := range all {
		method, path, _ := strings.Cut(r.pattern, " ")
		path = strings.NewReplacer("{ref}", "mynet", "{ref...}", "mynet", "{name}", "x", "{rest...}", "x", "{$}",
			"").Replace(path)
		if strings.Contains(path, "/containers/") {
			path = strings.Replace(path, "mynet", "web", 1)
		}
		refused := func(name string, query url.Values) {
			t.Helper()
			if status, body := answer(s, method, path, query); status != http.StatusBadRequest ||
				!strings.Contains(body, name) {
				t.Errorf("%s?%s: status %d, %s; wanted 400 and %s", r.pattern, query.Encode(), status, body, name)
			}
		}
		refused("nosuch", url.Values{"nosuch": {"1"}})
		for _, p := range r.query {
			refused(p.name, url.Values{p.name: {"1", "1"}})
			if anyText[r.pattern+" "+p.name] != "" {
				continue
			}
			switch p.name {
			case "since", "until":
				refused("invalid time", url.Values{p.name: {"nonsense"}})
			case "filters":
				refused("nosuch", url.Values{p.name: {`{"nosuch":["1"]}`}})
				refused("invalid filters", url.Values{p.name: {"nonsense"}})
			case "scope":
				if status, body := answer(s, method, path,
					url.Values{p.name: {"swarm"}}); status != http.StatusNotFound {
					t.Errorf("%s?scope=swarm: status %d, %s", r.pattern, status, body)
				}
			default:
				refused(p.name, url.Values{p.name: {"nonsense"}})
			}
		}
	}
}

// TestEveryFilterChooses has for each filter a value that chooses something, one that chooses nothing else, and one
// that is refused where a filter does not take any text.
func TestEveryFilterChooses(t *testing.T) {
	s := newModel(t)
	// what an answer shows, in a word for each
	shown := func(body string) string {
		var names []string
		for _, n := range []string{"mynet", "settings", "bridge", "host", "none", "/web", "/job", "connect", "start"} {
			if strings.Contains(body, fmt.Sprintf("%q", n)) {
				names = append(names, n)
			}
		}
		return strings.Join(names, " ")
	}
	for _, route := range s.dockerRoutes() {
		if len(route.filters) == 0 || route.pattern == "GET /networks" {
			continue
		}
		method, path, _ := strings.Cut(strings.Replace(route.pattern, "{$}", "", 1), " ")
		// What to ask for, what is shown, and what is refused ("" where any text is possible).
		var cases map[string][3]string
		switch path {
		case "/networks/":
			cases = map[string][3]string{
				"name": {"^my", "mynet", ""}, "id": {"^nosuch", "", ""}, "driver": {"host", "host", ""},
				"scope": {"swarm", "", ""},
				"type":  {"custom", "mynet settings", "foo"}, "label": {"team=a", "mynet", ""},
				"dangling": {"true", "settings", "T"},
			}
		case "/networks/prune":
			cases = map[string][3]string{
				"until": {"1h", "", "nonsense"}, "label": {"team=a", "mynet", ""}, "label!": {"team=a", "settings", ""},
			}
		case "/containers/json":
			cases = map[string][3]string{
				"name": {"we", "/web", ""}, "id": {"nosuch", "", ""}, "status": {"exited", "/job", "foo"},
				"label":   {"team=a", "/web mynet", ""},
				"network": {"mynet", "/web mynet", ""}, "exited": {"3", "/job", "foo"},
				"publish": {"79-81", "/web mynet", "foo"},
				"expose":  {"80/tcp", "/web mynet", "80/foo"}, "before": {"web", "", "nobody"},
				"since":    {"job", "", "nobody"},
				"ancestor": {"busybox", "", ""}, "volume": {"v", "", ""}, "health": {"healthy", "", "foo"},
				"isolation": {"hyperv", "", ""},
				"is-task":   {"true", "", "foo"},
			}
		case "/events":
			cases = map[string][3]string{
				"type": {"network", "mynet connect", ""}, "event": {"start", "start", ""},
				"container": {"c1", "mynet connect start", ""},
				"network": {
					"mynet",
					"mynet connect",
					"",
				}, "label": {"team=a", "start", ""}, "scope": {"swarm", "", ""},
			}
			for _, k := range []string{"config", "daemon", "image", "node", "plugin", "secret", "service", "volume"} {
				cases[k] = [3]string{"x", "", ""}
			}
		default:
			cases = map[string][3]string{}
		}
		for _, key := range route.filters {
			c, ok := cases[key]
			if !ok {
				t.Errorf("%s: nothing shows what filter %s does", route.pattern, key)
				continue
			}
			ask := func(v string) (int, string) {
				f, _ := json.Marshal(map[string][]string{key: {v}})
				return answer(s, method, path, url.Values{"filters": {string(f)}})
			}
			status, body := ask(c[0])
			got, want := strings.Fields(shown(body)), strings.Fields(c[1])
			if path == "/containers/json" { // which shows networks beside
				got = slices.DeleteFunc(got, func(n string) bool { return !strings.HasPrefix(n, "/") })
				want = slices.DeleteFunc(want, func(n string) bool { return !strings.HasPrefix(n, "/") })
			}
			if path == "/networks/" { // where a driver is called as its network
				got = slices.DeleteFunc(got,
					func(n string) bool { return n == "bridge" && !strings.Contains(body, `"Name":"bridge"`) })
			}
			if status != http.StatusOK || !slices.Equal(got, want) {
				t.Errorf("%s %s=%s: status %d shows %v, want %v", route.pattern, key, c[0], status, got, want)
			}
			if c[2] != "" {
				if status, body := ask(c[2]); status < 400 || !strings.Contains(body, c[2]) &&
					!strings.Contains(body, key) {
					t.Errorf("%s %s=%s: status %d, %s", route.pattern, key, c[2], status, body)
				}
			}
		}
	}
	for query, words := range map[string]string{
		`/networks?filters={"dangling":["true","false"]}`: "got more than one value",
		`/events?since=2&until=1`:                         "`since` time (2) cannot be after `until` time (1)",
	} {
		path, q, _ := strings.Cut(query, "?")
		values, _ := url.ParseQuery(q)
		if status, body := answer(s, "GET", path, values); status != 400 || !strings.Contains(body, words) {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
	if status, body := answer(s, "POST", "/networks/prune",
		url.Values{"filters": {`{"until":["1h","2h"]}`}}); status != 400 ||
		!strings.Contains(body, "more than one until") {
		t.Errorf("two until: %d %s", status, body)
	}
}
