// Package logevents gives lines of the log names that stay the same when their texts are reworded: the attribute event.
// docs/observe.md lists them; a test holds that each text of the daemon's has one.
package logevents

import (
	"context"
	"log/slog"
	"strings"
)

// Key is the attribute's.
const Key = "event"

// Name is the event with a text; "": it has none, as lines for debugging have.
func Name(text string) string {
	if name, ok := names()[text]; ok {
		return name
	}
	best, found := "", ""
	for begin, name := range names() { // of those that go on with what a machine lacks or was given
		if len(begin) > len(best) && strings.HasSuffix(begin, " ") && strings.HasPrefix(text, begin) {
			best, found = begin, name
		}
	}
	return found
}

// New returns a handler that adds the attribute, and gives all to next.
func New(next slog.Handler) slog.Handler { return handler{next} }

type handler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level > slog.LevelDebug {
		if name := Name(r.Message); name != "" {
			r = r.Clone()
			r.AddAttrs(slog.String(Key, name))
		}
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
