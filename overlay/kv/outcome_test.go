package kv

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/usernet/usernet/overlay"
)

// refusing is a store whose watch waits for ever, and whose calls fail.
type refusing struct {
	Store
	err error
}

func (s refusing) Get(context.Context, string) (Pair, error) { return Pair{}, s.err }

func (s refusing) Watch(ctx context.Context) iter.Seq2[Event, error] {
	return func(func(Event, error) bool) { <-ctx.Done() }
}

// TestAProbesErrorNamesTheStoreOnce has a probe end the watch: what Watch says is what the call said, without a second
// "cluster store ..." around it.
func TestAProbesErrorNamesTheStoreOnce(t *testing.T) {
	for _, err := range []error{&RefusedError{Err: errors.New("permission denied")}, errors.New("connection refused")} {
		config := Config{URL: "etcd://192.0.2.4:2379/usernet", Host: overlay.NewHostID(), Incarnation: 1}
		b := New(refusing{err: err}, config)
		called := b.call(t.Context(), func(context.Context) error { return err })
		_, followed := b.follow(t.Context(), nil)
		said := b.outcome(followed).Error()
		if said != called.Error() || strings.Count(said, "cluster store") != 1 {
			t.Errorf("the watch says %q, a call %q", said, called)
		}
	}
}
