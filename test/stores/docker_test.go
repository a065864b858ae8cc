package stores

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/libnetwork"
)

// openDocker opens a store as Docker's daemons use it.
func openDocker(t *testing.T, url string) libnetwork.Store {
	t.Helper()
	l, err := libnetwork.ParseStore(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := libnetwork.OpenStore(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestEtcdOfDocker(t *testing.T) {
	s := startEtcd(t, "http", "--enable-v2")
	s.start(t)
	testDockerStore(t, s, "etcd")
}

func TestEtcdOfDockerWithoutItsVersion(t *testing.T) {
	s := startEtcd(t, "http", "--enable-v2=false")
	s.start(t)
	_, err := openDocker(t, s.url("etcd")).List(t.Context(), "docker")
	if err == nil {
		t.Fatal("a server without version 2 of the API is taken for an empty one")
	}
	t.Log(err)
}

func TestZooKeeperOfDocker(t *testing.T) {
	s := startZooKeeper(t)
	s.start(t)
	testDockerStore(t, s, "zk")
}

// testDockerStore holds a store to what libnetwork.Store promises.
func testDockerStore(t *testing.T, server *server, scheme string) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, b := openDocker(t, server.url(scheme)+"/some/where"), openDocker(t, server.url(scheme)+"/some/where")
	elsewhere := openDocker(t, server.url(scheme))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Get(ctx, "docker/x/1"); !errors.Is(err, libnetwork.ErrNotFound) {
		t.Errorf("a key that is not there: %v", err)
	}
	if list, err := a.List(ctx, "docker/x"); err != nil || len(list) != 0 {
		t.Errorf("keys that are not there: %v, %v", list, err)
	}
	must(a.Put(ctx, "docker/x/1", []byte("one"), 0))
	must(b.Put(ctx, "docker/x/y/2", []byte("two"), 0))
	if err := b.Put(ctx, "docker/x/1", []byte("again"), 0); !errors.Is(err, libnetwork.ErrConflict) {
		t.Errorf("a key that is there already: %v", err)
	}
	p, err := b.Get(ctx, "docker/x/1")
	if err != nil || string(p.Value) != "one" || p.Key != "docker/x/1" || p.Index == 0 {
		t.Fatalf("it is %+v, %v", p, err)
	}
	must(a.Put(ctx, p.Key, []byte("changed"), p.Index))
	for what, err := range map[string]error{
		"writing": b.Put(ctx, p.Key, []byte("again"), p.Index), "deleting": b.Delete(ctx, p.Key, p.Index),
		"writing what is gone": b.Put(ctx, "docker/x/3", []byte("three"), p.Index),
	} {
		if !errors.Is(err, libnetwork.ErrConflict) {
			t.Errorf("%s by an old index: %v", what, err)
		}
	}
	list, err := b.List(ctx, "docker/x")
	must(err)
	var found []string
	for _, p := range list {
		found = append(found, p.Key+"="+string(p.Value))
	}
	slices.Sort(found)
	if want := []string{"docker/x/1=changed", "docker/x/y/2=two"}; !slices.Equal(found, want) {
		t.Errorf("the keys are %v, want %v", found, want)
	}
	if list, err := elsewhere.List(ctx, "docker"); err != nil || len(list) != 0 {
		t.Errorf("below no prefix are %v, %v", list, err)
	}
	must(a.Beat(ctx, "docker/nodes/n", "here", 2*time.Second))
	must(a.Beat(ctx, "docker/nodes/n", "here", 2*time.Second))
	must(b.Beat(ctx, "docker/nodes/n", "here", 2*time.Second)) // of a later life
	dockerWatch(ctx, t, a, b)
	server.kill(t)
	server.start(t)
	eventuallyGet(ctx, t, a, "docker/x/y/2", "two")
}

// eventuallyGet waits until a key has a value.
func eventuallyGet(ctx context.Context, t *testing.T, s libnetwork.Store, key, value string) {
	t.Helper()
	for {
		p, err := s.Get(ctx, key)
		if err == nil && string(p.Value) == value {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s is %q, %v; want %q", key, p.Value, err, value)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// dockerWatch has one client watch what another does: each change is told.
func dockerWatch(ctx context.Context, t *testing.T, a, b libnetwork.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	changes, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		a.Watch(ctx, "docker", func() {
			select {
			case changes <- struct{}{}:
			default:
			}
		})
	}()
	defer func() {
		cancel()
		<-ended
	}()
	for i := range 5 {
		key := fmt.Sprintf("docker/w/%d", i%3)
		if i == 0 { // that there is something to watch
			if err := b.Put(ctx, "docker/w/x", []byte("x"), 0); err != nil {
				t.Fatal(err)
			}
		}
		// As the worker does: what was told of is read, and the next change after that is told.
		for more := true; more; {
			if _, err := a.List(ctx, "docker/w"); err != nil {
				t.Fatal(err)
			}
			select {
			case <-changes:
			case <-time.After(200 * time.Millisecond):
				more = false
			}
		}
		p, err := b.Get(ctx, key)
		if err != nil && !errors.Is(err, libnetwork.ErrNotFound) {
			t.Fatal(err)
		}
		if err := b.Put(ctx, key, fmt.Appendf(nil, "%d", i), p.Index); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changes:
		case <-ctx.Done():
			t.Fatalf("change %d of %s is not told", i, key)
		}
	}
}
