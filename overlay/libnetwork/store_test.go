package libnetwork

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/usernet/usernet/overlay/kv"
)

// TestAStoreThatDoesNotAnswer ends a call with for how long the store was waited for, in the place of Go's words.
func TestAStoreThatDoesNotAnswer(t *testing.T) {
	const wait = 20 * time.Millisecond
	end := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-end }))
	defer server.Close()
	begun := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("{"))
		_ = http.NewResponseController(w).Flush()
		<-end
	}))
	defer begun.Close()
	defer close(end) // before the servers, which wait for their handlers
	at := func(s *httptest.Server) *etcd {
		e, err := newEtcd(kv.Location{Hosts: []string{strings.TrimPrefix(s.URL, "http://")}})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	silent, stops := at(server), at(begun)
	defer silent.Close()
	defer stops.Close()
	keeper, full := &zooKeeper{calls: make(chan struct{}, 1)}, &zooKeeper{calls: make(chan struct{})}
	call := func(s *zooKeeper) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := do(ctx, s, func(*zk.Conn) (int, error) { <-end; return 0, nil })
			return err
		}
	}
	for name, test := range map[string]struct {
		call func(context.Context) error
		want string
	}{
		"etcd is silent": {
			func(ctx context.Context) error { _, err := silent.Get(ctx, "a/b"); return err },
			"etcd at " + server.URL + ": no answer within 20ms",
		},
		"etcd stops in an answer": {
			func(ctx context.Context) error { return stops.Put(ctx, "a/b", nil, 0) },
			"etcd at " + begun.URL + ": no answer within 20ms",
		},
		"ZooKeeper is silent":          {call(keeper), "ZooKeeper: no answer within 20ms"},
		"ZooKeeper has too many calls": {call(full), "ZooKeeper: no answer within 20ms"},
	} {
		ctx, cancel := within(t.Context(), wait)
		if err := test.call(ctx); err == nil || err.Error() != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
		cancel()
	}
}
