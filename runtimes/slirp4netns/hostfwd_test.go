package slirp4netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fakePublisher keeps what is published; a port that is taken is refused.
type fakePublisher struct {
	mu    sync.Mutex
	ports map[string]netip.AddrPort
}

func (f *fakePublisher) Publish(_ context.Context, proto string, host, guest netip.AddrPort) (func() error, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := proto + " " + host.String()
	if _, taken := f.ports[key]; taken {
		return nil, errors.New("address already in use")
	}
	f.ports[key] = guest
	return func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.ports, key)
		return nil
	}, nil
}

func newHostfwd() (*hostfwd, *fakePublisher) {
	p := &fakePublisher{ports: map[string]netip.AddrPort{}}
	return &hostfwd{
		publisher: p,
		guest:     netip.MustParseAddr("10.0.2.100"),
		guest6:    netip.MustParseAddr("fd00::100"),
		log:       slog.New(slog.DiscardHandler),
	}, p
}

// startAPI serves a hostfwd on a socket and returns what sends a request and reads the answer.
func startAPI(t *testing.T) (func(request string) string, *fakePublisher) {
	t.Helper()
	h, p := newHostfwd()
	path := filepath.Join(t.TempDir(), "api.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { h.serve(ctx, ln); close(done) }()
	t.Cleanup(func() { cancel(); _ = ln.Close(); <-done })
	return func(request string) string {
		t.Helper()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.UnixConn).CloseWrite()
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}, p
}

// TestConversationsOfTheAPISocket holds the answers against those that slirp4netns 1.3.2 was recorded with, in one
// conversation: ids count over both protocols and are not used again.
func TestConversationsOfTheAPISocket(t *testing.T) {
	ask, published := startAPI(t)
	add := func(arguments string) string { return `{"execute":"add_hostfwd","arguments":{` + arguments + `}}` }
	bad := func(what string) string { return `{"error":{"desc":"bad request: ` + what + `"}}` }
	for _, c := range []struct{ request, want string }{
		{add(`"proto":"tcp","host_addr":"0.0.0.0","host_port":18080,"guest_addr":"","guest_port":80`) + "\n", `{"return":{"id":1}}`},
		{add(`"proto":"udp","host_addr":"127.0.0.1","host_port":18080,"guest_addr":"10.0.2.100","guest_port":80`), `{"return":{"id":2}}`},
		{add(`"proto":"tcp","host_port":18081,"guest_port":81`), `{"return":{"id":3}}`},
		{add(`"proto":"tcp","host_addr":"::1","host_port":18080,"guest_port":80`), `{"return":{"id":4}}`},
		{add(`"proto":"tcp","host_port":18081,"guest_port":81`), bad("add_hostfwd: slirp_add_hostfwd failed: address already in use")},
		{add(`"proto":"sctp","host_port":1,"guest_port":1`), bad("add_hostfwd: bad arguments.proto")},
		{add(`"host_port":1,"guest_port":1`), bad("add_hostfwd: bad arguments.proto")},
		{add(`"proto":"tcp","host_addr":"localhost","host_port":1,"guest_port":1`), bad("add_hostfwd: bad arguments.host_addr")},
		{add(`"proto":"tcp","guest_port":1`), bad("add_hostfwd: bad arguments.host_port")},
		{add(`"proto":"tcp","host_port":70000,"guest_port":1`), bad("add_hostfwd: bad arguments.host_port")},
		{add(`"proto":"tcp","host_port":-1,"guest_port":1`), bad("add_hostfwd: bad arguments.host_port")},
		{add(`"proto":"tcp","host_port":1,"guest_addr":"x","guest_port":1`), bad("add_hostfwd: bad arguments.guest_addr")},
		{add(`"proto":"tcp","host_port":1,"guest_addr":"fd00::1","guest_port":1`), bad("add_hostfwd: bad arguments.guest_addr")},
		{add(`"proto":"tcp","host_port":1`), bad("add_hostfwd: bad arguments.guest_port")},
		{`{"execute":"remove_hostfwd","arguments":{"id":2}}`, `{"return":{}}`},
		{`{"execute":"remove_hostfwd","arguments":{"id":2}}`, bad("remove_hostfwd: bad arguments.id")},
		{`{"execute":"remove_hostfwd"}`, bad("remove_hostfwd: bad arguments.id")},
		{`{"execute":"list_hostfwd"}`, `{"entries":[` +
			`{"id":1,"proto":"tcp","host_addr":"0.0.0.0","host_port":18080,"guest_addr":"10.0.2.100","guest_port":80},` +
			`{"id":3,"proto":"tcp","host_addr":"0.0.0.0","host_port":18081,"guest_addr":"10.0.2.100","guest_port":81},` +
			`{"id":4,"proto":"tcp","host_addr":"::1","host_port":18080,"guest_addr":"fd00::100","guest_port":80}]}`},
		{`{"execute":"frobnicate"}`, bad("unknown execute")},
		{`{}`, bad("no execute found")},
		{`{"execute":7}`, bad("no execute found")},
		{`[]`, bad("json_object() failed")},
		{`null`, bad("json_object() failed")},
		{``, bad("cannot parse JSON")},
		{`{"execute"`, bad("cannot parse JSON")},
		{strings.Repeat(" ", maxRequest), bad("too large message")},
	} {
		if got := ask(c.request); got != c.want {
			t.Errorf("%.120s\n got %s\nwant %s", c.request, got, c.want)
		}
	}
	if len(published.ports) != 3 {
		t.Errorf("published: %v", published.ports)
	}
}

func TestAnEmptyListIsAList(t *testing.T) {
	ask, _ := startAPI(t)
	if got := ask(`{"execute":"list_hostfwd"}`); got != `{"entries":[]}` {
		t.Error(got)
	}
}

func TestManyPortsOfManyClients(t *testing.T) {
	ask, published := startAPI(t)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			request := fmt.Sprintf(`{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":%d,"guest_port":80}}`, 10000+i)
			if got := ask(request); !strings.Contains(got, `"return"`) {
				t.Error(got)
			}
		})
	}
	wg.Wait()
	if len(published.ports) != 64 {
		t.Errorf("%d ports", len(published.ports))
	}
}

func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":1,"guest_port":1}}`))
	f.Add([]byte(`{"execute":"remove_hostfwd","arguments":{"id":1e99}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, _ := newHostfwd()
		if result, err := h.handle(t.Context(), b); (result == nil) == (err == nil) {
			t.Errorf("%q: %v and %v", b, result, err)
		}
	})
}
