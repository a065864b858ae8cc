package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/usernet/usernet/network"
)

// recorder is a backend that notes what it is asked for.
type recorder struct {
	nobody
	created  network.NetworkSpec
	endpoint network.EndpointSpec
}

func (r *recorder) CreateNetwork(_ context.Context, s network.NetworkSpec) (*network.Network, string, error) {
	r.created = s
	return &network.Network{ID: "n"}, "", nil
}

func (r *recorder) Connect(_ context.Context, _, _ string, s network.EndpointSpec) error {
	r.endpoint = s
	return nil
}

// TestFieldsOfNewerVersions are ignored where a client asks for an API that did not have them, as dockerd does.
func TestFieldsOfNewerVersions(t *testing.T) {
	for _, test := range []struct {
		version          string
		v4Given, macUsed bool
	}{{"/v1.47", false, false}, {"/v1.48", true, false}, {"/v1.53", true, false}, {"/v1.54", true, true},
		{"", true, true}} {
		b := &recorder{}
		s := NewServer(b, slog.New(slog.DiscardHandler))
		send := func(path, body string) {
			r := httptest.NewRequest("POST", test.version+path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			s.http.Handler.ServeHTTP(w, asOwn(r))
			if w.Code >= 300 {
				t.Fatalf("%s%s: %d %s", test.version, path, w.Code, w.Body)
			}
		}
		send("/networks/create", `{"Name":"x","EnableIPv4":false}`)
		send("/networks/x/connect", `{"Container":"c","EndpointConfig":{"MacAddress":"02:00:00:00:00:01"}}`)
		if (b.created.EnableIPv4 != nil) != test.v4Given || (b.endpoint.MAC != network.MAC{}) != test.macUsed {
			t.Errorf("version %q: EnableIPv4 %v, MAC %v", test.version, b.created.EnableIPv4, b.endpoint.MAC)
		}
	}
}

// TestInfoHasNoNulls: clients index what dockerd shows as an empty list or object.
func TestInfoHasNoNulls(t *testing.T) {
	s := newModel(t)
	status, body := answer(s, "GET", "/info", url.Values{})
	var info map[string]any
	if err := json.Unmarshal([]byte(body), &info); err != nil || status != http.StatusOK {
		t.Fatal(status, err)
	}
	for _, k := range []string{"DriverStatus", "Labels", "Runtimes", "CDISpecDirs", "RegistryConfig", "Plugins",
		"Swarm", "SecurityOptions"} {
		if info[k] == nil {
			t.Errorf("%s is null", k)
		}
	}
	for k, v := range info["Plugins"].(map[string]any) {
		if v == nil {
			t.Errorf("Plugins.%s is null", k)
		}
	}
	if info["Swarm"].(map[string]any)["LocalNodeState"] != "inactive" || info["CgroupDriver"] != "none" {
		t.Errorf("%v, %v", info["Swarm"], info["CgroupDriver"])
	}
}

// TestOldFieldsOfContainers are there for templates that ask for them, before API 1.52 only.
func TestOldFieldsOfContainers(t *testing.T) {
	s := newModel(t)
	for version, want := range map[string]bool{"/v1.51": true, "/v1.52": false} {
		_, body := answer(s, "GET", version+"/containers/web/json", url.Values{})
		var c struct{ NetworkSettings map[string]any }
		if err := json.Unmarshal([]byte(body), &c); err != nil {
			t.Fatal(err)
		}
		for _, k := range []string{
			"Bridge", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen", "SecondaryIPAddresses",
			"SecondaryIPv6Addresses",
			"IPAddress", "MacAddress", "Gateway",
		} {
			if _, ok := c.NetworkSettings[k]; ok != want {
				t.Errorf("%s: %s is there: %v", version, k, ok)
			}
		}
	}
}

func TestListsOfOldVersionsHaveContainers(t *testing.T) {
	s := newModel(t)
	for version, want := range map[string]bool{"/v1.27": true, "/v1.28": false} {
		if _, body := answer(s, "GET", version+"/networks", url.Values{}); strings.Contains(body,
			`"Containers"`) != want {
			t.Errorf("%s: %s", version, body)
		}
	}
	_, body := answer(s, "GET", "/networks/settings", url.Values{})
	if !strings.Contains(body, `"Driver":"null"`) {
		t.Errorf("a config-only network has a driver: %s", body)
	}
}
