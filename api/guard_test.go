package api

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/network/boltstore"
)

// nobody is a backend behind which nothing may be reached: what is not overridden panics.
type nobody struct{ Backend }

func (nobody) Container(ref string) (*network.Container, error) {
	return nil, errdefs.NotFound("no such container: %s", ref)
}

func (nobody) Network(ref string) (*network.Network, error) {
	return nil, errdefs.NotFound("network %s not found", ref)
}

func guarded() *Server { return NewServer(nobody{}, slog.New(slog.DiscardHandler)) }

func TestOtherUsersAreRefused(t *testing.T) {
	s := guarded()
	for uid, want := range map[int]int{
		os.Geteuid(): http.StatusOK, 0: http.StatusOK, os.Geteuid() + 1: http.StatusForbidden, -1: http.StatusForbidden,
		65534: http.StatusForbidden,
	} {
		r := httptest.NewRequest("GET", "/_ping", nil)
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), uidKey{}, uid)))
		if w.Code != want {
			t.Errorf("uid %d: status %d, wanted %d", uid, w.Code, want)
		}
	}
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, httptest.NewRequest("GET", "/_ping", nil)) // from somewhere that has no credentials
	if w.Code != http.StatusForbidden {
		t.Errorf("without credentials: status %d", w.Code)
	}
}

// own sends a request as this user.
func own(s *Server, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://usernet/", strings.NewReader(body))
	r.URL.Path, r.URL.RawPath = path, ""
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), uidKey{}, os.Geteuid())))
	return w
}

func TestBodiesAreBounded(t *testing.T) {
	s := guarded()
	for _, path := range []string{"/usernet/networks", "/usernet/containers", "/networks/create"} {
		w := own(s, "POST", path, `{"Name":"`+strings.Repeat("x", maxBody)+`"}`)
		if w.Code < 400 || w.Code >= 500 {
			t.Errorf("%s with a body over the bound: status %d", path, w.Code)
		}
	}
}

func TestPathsDoNotLeadElsewhere(t *testing.T) {
	s := guarded()
	for _, ref := range []string{"..", "../../etc/passwd", "a/../../b", "%2e%2e", "\x00", "-",
		strings.Repeat("a", 5000)} {
		for _, path := range []string{"/usernet/containers/" + ref, "/containers/" + ref + "/json", "/networks/" +
			ref} {
			if w := own(s, "GET", path, ""); w.Code == http.StatusOK || w.Code >= 500 &&
				w.Code != http.StatusNotImplemented {
				t.Errorf("%q: status %d: %s", path, w.Code, w.Body)
			}
		}
	}
}

func TestPeerAndHeadersOverTheSocket(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "un-api-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := guarded()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	for _, test := range []struct {
		name, request string
		status        int
	}{
		{"this user", "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n", http.StatusOK},
		{"headers without end", "GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
			http.StatusRequestHeaderFieldsTooLarge},
		{"no HTTP", "hello\r\n\r\n", http.StatusBadRequest},
	} {
		c, err := net.Dial("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		go func() { _, _ = fmt.Fprint(c, test.request) }()
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || r.StatusCode != test.status {
			t.Errorf("%s: %v, %v", test.name, r, err)
		}
		_ = c.Close()
	}
	if s.http.ReadHeaderTimeout == 0 || s.http.IdleTimeout == 0 {
		t.Error("a client that says nothing is kept for ever")
	}
}

// FuzzBodies gives every route that takes one a body that is anything.
func FuzzBodies(f *testing.F) {
	f.Add(uint8(0), `{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.0/8"}]}}`)
	f.Add(uint8(1), `{"Name":"n","Pools":[{"Subnet":"10.0.0.0/8","Gateway":"10.0.0.1"}]}`)
	f.Add(uint8(2),
		`{"Name":"c","Ports":[{"port":80,"proto":"tcp"}],"Networks":[{"Network":"n","MAC":"02:00:00:00:00:01"}]}`)
	f.Add(uint8(3), `{"Container":"c","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.0.0.2"}}}`)
	f.Add(uint8(4), `[{"host_port":1,"port":2,"proto":"udp"}]`)
	paths := []string{
		"/networks/create",
		"/usernet/networks",
		"/usernet/containers",
		"/networks/n/connect",
		"/usernet/containers/c/ports",
		"/networks/n/disconnect",
		"/usernet/containers/c/start",
	}
	m, err := boltstore.OpenModel(filepath.Join(f.TempDir(), "db"), network.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = m.Close() })
	s := NewServer(modelOnly{m: m}, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, path uint8, body string) {
		if w := own(s, "POST", paths[int(path)%len(paths)], body); w.Code == 0 {
			t.Errorf("no answer to %q", body)
		}
	})
}

// modelOnly keeps what it is asked for in a store, and runs nothing.
type modelOnly struct {
	Backend
	m *network.Model
}

var errOnlyModel = errdefs.NotImplemented("nothing runs here")

func (b modelOnly) Container(ref string) (*network.Container, error) { return b.m.Container(ref) }
func (b modelOnly) Network(ref string) (*network.Network, error)     { return b.m.Network(ref) }
func (b modelOnly) Networks() []*network.Network                     { return b.m.Networks() }
func (b modelOnly) Containers() []*network.Container                 { return b.m.Containers() }
func (modelOnly) ContainersElsewhere(string) []*network.Container    { return nil }

func (modelOnly) Health(*network.Container) *network.Health { return nil }

func (b modelOnly) CreateNetwork(_ context.Context, s network.NetworkSpec) (*network.Network, string, error) {
	n, warning, err := b.m.CreateNetwork(s)
	if err == nil {
		err = b.m.RemoveNetwork(n.ID) // so that pools do not run out
	}
	return n, warning, err
}

func (b modelOnly) CreateContainer(_ context.Context, s network.ContainerSpec) (*network.Container, []string, error) {
	c, warnings, err := b.m.CreateContainer(s)
	if err == nil {
		err = b.m.RemoveContainer(c.ID)
	}
	return c, warnings, err
}

func (modelOnly) Connect(context.Context, string, string, network.EndpointSpec) error {
	return errOnlyModel
}
func (modelOnly) Disconnect(context.Context, string, string, bool) error { return errOnlyModel }

func (modelOnly) ContainerFiles(string) (StartReply, error) { return StartReply{}, errOnlyModel }
func (modelOnly) StartContainer(context.Context, string, Started) (StartReply, error) {
	return StartReply{}, errOnlyModel
}

func (modelOnly) PublishPorts(context.Context, string, []network.PortBinding) ([]Published, error) {
	return nil, errOnlyModel
}
