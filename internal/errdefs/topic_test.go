package errdefs

import (
	"errors"
	"fmt"
	"testing"
)

func TestTopics(t *testing.T) {
	plain := errors.New("plain")
	for _, test := range []struct {
		err  error
		want Topic
	}{
		{plain, TopicInternal},
		{Internal("x"), TopicInternal},
		{Invalid("x"), TopicInvalid},
		{fmt.Errorf("more: %w", NotFound("x")), TopicNotFound},
		{Conflict("x: %w", Invalid("y")), TopicConflict},
		{About(TopicNames, plain), TopicNames},
		{About(TopicNames, About(TopicPing, plain)), TopicNames},
		{Conflict("x: %w", About(TopicPortTaken, plain)), TopicPortTaken},
		{fmt.Errorf("more: %w", About(TopicCluster, Unavailable("x"))), TopicCluster},
	} {
		if got := TopicOf(test.err); got != test.want {
			t.Errorf("%v: %s, want %s", test.err, got, test.want)
		}
	}
	if About(TopicNames, nil) != nil {
		t.Error("no error has a topic")
	}
	if err := About(TopicNames, Conflict("x")); !errors.Is(err, ErrConflict) || err.Error() != "x" {
		t.Errorf("a topic changes an error: %v", err)
	}
	seen := map[Topic]bool{}
	for _, topic := range Topics {
		if seen[topic] {
			t.Errorf("%s is there twice", topic)
		}
		seen[topic] = true
	}
}
