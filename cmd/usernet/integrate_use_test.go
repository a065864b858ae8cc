package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// attachmentsDaemon answers with attachments, and is closed with the test.
func attachmentsDaemon(t *testing.T, list []network.Container) func() (*api.Client, error) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/usernet/attachments" || r.URL.Query().Get("prefix") != "netavark/" {
			t.Errorf("asked for %s", r.URL)
		}
		_ = json.NewEncoder(w).Encode(list)
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-served })
	return func() (*api.Client, error) { return api.NewClient(socket), nil }
}

// TestUndoSaysWhoUsesTheIntegration: the containers that run, what they have, and what becomes of them.
func TestUndoSaysWhoUsesTheIntegration(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("XDG_DATA_HOME", "")
	list := []network.Container{{Name: "web", Endpoints: []*network.Endpoint{
		{Key: "netavark/n/c", Network: "net1", IPv4: netip.MustParsePrefix("10.0.0.9/24"),
			IPv6: netip.MustParsePrefix("fd00::9/64")},
		{Network: "other", IPv4: netip.MustParsePrefix("10.1.0.9/24")},
	}}, {Name: "app", Endpoints: []*network.Endpoint{{Key: "netavark/n/d", Network: "net1"}}}}
	said := func(name string, written bool, daemon func() (*api.Client, error)) string {
		i, err := integrationFor(name)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if written {
			if err := i.write(&strings.Builder{}); err != nil {
				t.Fatal(err)
			}
		}
		i.warnOfUse(context.Background(), &b, daemon)
		return b.String()
	}
	gone := func() (*api.Client, error) { return api.NewClient(filepath.Join(dir, "none")), nil }
	if out := said("netavark", false, attachmentsDaemon(t, list)); out != "" {
		t.Errorf("of an integration that is not in place: %q", out)
	}
	out := said("netavark", true, attachmentsDaemon(t, list))
	for _, want := range []string{
		"warning: these containers run", "remove them", "\n  app: net1\n  web: net1, 10.0.0.9, fd00::9\n", "detach",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	for name, daemon := range map[string]func() (*api.Client, error){
		"nobody uses it": attachmentsDaemon(t, nil), "no daemon": gone,
	} {
		if out := said("netavark", true, daemon); out != "" {
			t.Errorf("%s: %q", name, out)
		}
	}
	if out := said("podman", true, gone); !strings.Contains(out, "until they are stopped") {
		t.Errorf("of the places: %q", out)
	}
}
