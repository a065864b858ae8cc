package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
)

// TestEachErrorHasATopic answers with errors of all classes, of none, and with topics of their own.
func TestEachErrorHasATopic(t *testing.T) {
	plain := errors.New("plain")
	for _, err := range []error{
		plain, errdefs.Internal("x"), errdefs.Invalid("x"), errdefs.NotFound("x"), errdefs.Conflict("x"),
		errdefs.Forbidden("x"),
		errdefs.Unavailable("x"), errdefs.NotImplemented("x"), errdefs.About(errdefs.TopicNames, plain),
		errdefs.Conflict("%w", errdefs.About(errdefs.TopicPortTaken, plain)),
	} {
		w := httptest.NewRecorder()
		fail(w, err)
		topic := errdefs.Topic(w.Result().Header.Get(topicHeader))
		if topic != errdefs.TopicOf(err) || !slices.Contains(errdefs.Topics, topic) {
			t.Errorf("%v: topic %q", err, topic)
		}
		got := &Error{Status: w.Code, Topic: topic}
		if got.TopicOf() != topic {
			t.Errorf("%v: the client has %q", err, got.TopicOf())
		}
		if old := (&Error{Status: w.Code}).TopicOf(); !slices.Contains(errdefs.Topics, old) {
			t.Errorf("%v: of a daemon that names none the client has %q", err, old)
		}
	}
	w := httptest.NewRecorder()
	unknown(w, httptest.NewRequest(http.MethodGet, "/images/json", nil))
	if topic := w.Result().Header.Get(topicHeader); topic != string(errdefs.TopicNotImplemented) {
		t.Errorf("an unknown request: %q", topic)
	}
}
