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
)

// asOwn is r as it comes from this user.
func asOwn(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), uidKey{}, os.Geteuid()))
}

// TestBodiesAreJSONOrRefused sends to each request that has a body what is none.
func TestBodiesAreJSONOrRefused(t *testing.T) {
	s := newModel(t)
	for _, path := range []string{
		"/networks/create", "/networks/mynet/connect", "/networks/mynet/disconnect", "/usernet/networks",
		"/usernet/containers",
		"/usernet/networks/mynet/connect", "/usernet/networks/mynet/disconnect", "/usernet/containers/web/start",
		"/usernet/containers/web/ports",
	} {
		for _, test := range []struct{ kind, body, words string }{
			{"text/plain", `{}`, "unsupported Content-Type header (text/plain): must be 'application/json'"},
			{"application/x-www-form-urlencoded", `{}`,
				"unsupported Content-Type header (application/x-www-form-urlencoded)"},
			{"", `{}`, "Content-Type header ()"},
			{"application/json; charset", `{}`, "malformed Content-Type header"},
			{"application/json; charset=utf-8", `{"nosuchfield":1}`, "nosuchfield"},
			{"application/json", `{} trailing`, "unexpected content after JSON"},
			{"application/json", `{}{}`, "unexpected content after JSON"},
			{"application/json", `{`, "invalid JSON"},
		} {
			body := test.body
			if strings.HasSuffix(path, "/ports") && strings.HasPrefix(test.words, "unexpected") {
				body = strings.Replace(body, "{}", "[]", 1)
			}
			if strings.HasSuffix(path, "/ports") && test.words == "nosuchfield" {
				body = "[" + body + "]"
			}
			r := httptest.NewRequest("POST", "http://usernet"+path, strings.NewReader(body))
			r.Header.Set("Content-Type", test.kind)
			if test.kind == "" {
				r.Header.Del("Content-Type")
			}
			w := httptest.NewRecorder()
			s.http.Handler.ServeHTTP(w, asOwn(r))
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), test.words) {
				t.Errorf("%s with %q and %s: status %d, %s; want 400 and %s", path, test.kind, body, w.Code, w.Body,
					test.words)
			}
		}
	}
	w := own(s, "POST", "/networks/create", "")
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "invalid name: name is empty") {
		t.Errorf("without a body: %d %s", w.Code, w.Body)
	}
	if w := own(s, "POST", "/networks/create", `{"Name":"x","CheckDuplicate":true}`); w.Code != http.StatusCreated {
		t.Errorf("an older client's field: %d %s", w.Code, w.Body)
	}
}

// TestWebPagesAreRefused sends what a browser sends for a page from elsewhere.
func TestWebPagesAreRefused(t *testing.T) {
	s := newModel(t)
	for header, value := range map[string]string{"Origin": "https://example.com", "Sec-Fetch-Site": "cross-site"} {
		r := httptest.NewRequest("POST", "http://localhost/networks/prune", nil)
		r.Header.Set(header, value)
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, asOwn(r))
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %s: status %d, %s", header, value, w.Code, w.Body)
		}
	}
}

// TestPathsAreCleanedWithTheirVersion redirects as dockerd does, and takes names apart that were escaped.
func TestPathsAreCleanedWithTheirVersion(t *testing.T) {
	s := newModel(t)
	if w := own(s, "POST", "/networks/create", `{"Name":"a/b c"}`); w.Code != http.StatusCreated {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, test := range []struct {
		target   string
		status   int
		location string
	}{
		{"/networks/", 200, ""},
		{"/v1.41/networks/", 200, ""},
		{"/v1.52//networks?filters=%7B%7D", 301, "/v1.52/networks?filters=%7B%7D"},
		{"//networks", 301, "/networks"},
		{"/v1.52/./networks/", 301, "/v1.52/networks/"},
		{"/networks/bridge?verbose=foo", 400, ""},
		{"/networks/bridge?verbose=1", 200, ""},
		{"/networks/bridge?scope=swarm", 404, ""},
		{"/swarm", 503, ""},
		{"/nodes", 503, ""},
	} {
		r := httptest.NewRequest("GET", test.target, nil)
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, asOwn(r))
		if w.Code != test.status || w.Header().Get("Location") != test.location {
			t.Errorf("%s: status %d to %q, want %d to %q", test.target, w.Code, w.Header().Get("Location"), test.status,
				test.location)
		}
	}
}

// waiting is a backend whose containers end when end is closed, and never where the daemon ends first.
type waiting struct {
	nobody
	end    chan struct{}
	daemon chan struct{}
}

func (b waiting) Container(ref string) (*network.Container, error) {
	if ref == "web" {
		return &network.Container{ID: "web"}, nil
	}
	return b.nobody.Container(ref)
}

func (b waiting) WaitContainer(ctx context.Context, _ string, c WaitCondition) (int, error) {
	select {
	case <-b.end:
		return len(c), nil
	case <-b.daemon:
	case <-ctx.Done():
	}
	return 0, errdefs.Unavailable("the daemon ends")
}

// TestWaitSendsItsHeaderAtOnce reads the header while the container runs, as Docker's clients do before they go on.
func TestWaitSendsItsHeaderAtOnce(t *testing.T) {
	for _, test := range []struct{ target, body, broken string }{
		{"/v1.45/containers/web/wait", `{"StatusCode":11}`, `{"Error":{"Message":"the daemon ends"},"StatusCode":-1}`},
		{"/v1.45/containers/web/wait?condition=next-exit", `{"StatusCode":9}`,
			`{"Error":{"Message":"the daemon ends"},"StatusCode":-1}`},
		{"/v1.45/containers/web/wait?condition=removed", `{"StatusCode":7}`,
			`{"Error":{"Message":"the daemon ends"},"StatusCode":-1}`},
		{"/usernet/containers/web/wait", `11`, ``},
	} {
		for _, daemonEnds := range []bool{false, true} {
			b := waiting{end: make(chan struct{}), daemon: make(chan struct{})}
			socket := serveOn(t, b)
			c, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\n\r\n", test.target)
			r, err := http.ReadResponse(bufio.NewReader(c), nil) // blocks without a header
			if err != nil || r.StatusCode != http.StatusOK {
				t.Fatalf("%s: no header while the container runs: %v", test.target, err)
			}
			want := test.body
			if daemonEnds {
				close(b.daemon)
				want = test.broken
			} else {
				close(b.end)
			}
			var body strings.Builder
			_, err = bufio.NewReader(r.Body).WriteTo(&body)
			if strings.TrimSpace(body.String()) != want || (err != nil) != (want == "") {
				t.Errorf("%s: %q, %v; want %q", test.target, body.String(), err, want)
			}
			_ = c.Close()
		}
	}
	s := NewServer(waiting{}, slog.New(slog.DiscardHandler))
	if w := own(s, "POST", "/usernet/containers/nobody/wait", ""); w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
	r := httptest.NewRequest("POST", "/containers/web/wait?condition=foo", nil)
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, asOwn(r))
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `invalid condition: \"foo\"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// serveOn serves b on a socket until the test ends.
func serveOn(t *testing.T, b Backend) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "un-api-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(b, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return filepath.Join(dir, "s")
}
