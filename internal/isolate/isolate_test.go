package isolate

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
)

func TestCall(t *testing.T) {
	var none *int
	for _, test := range []struct {
		name    string
		f       func() error
		want    error // that errors.Is finds
		isPanic bool
	}{
		{"no error", func() error { return nil }, nil, false},
		{"an error", func() error { return io.EOF }, io.EOF, false},
		{"a panic with a text", func() error { panic("a text") }, nil, true},
		{"a panic with an error", func() error { panic(io.EOF) }, io.EOF, true},
		{"a panic of the runtime", func() error { *none = 1; return nil }, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			before := Count()
			err := Call(slog.New(slog.NewTextHandler(&out, nil)), "testing", test.f, "container", "web")
			if test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if IsPanic(err) != test.isPanic || (err == nil) != (test.want == nil && !test.isPanic) {
				t.Errorf("error %v; IsPanic says %t", err, IsPanic(err))
			}
			if counted := Count() - before; counted != 1 == test.isPanic {
				t.Errorf("%d panics were counted", counted)
			}
			logged := out.String()
			if !test.isPanic {
				if logged != "" {
					t.Errorf("logged without a panic: %s", logged)
				}
				return
			}
			for _, want := range []string{"level=ERROR", "doing=testing", "container=web", "isolate_test.go"} {
				if !strings.Contains(logged, want) {
					t.Errorf("%q is not in the log:\n%s", want, logged)
				}
			}
		})
	}
}

func TestDo(t *testing.T) {
	if !Do(nil, "testing", func() {}) {
		t.Error("a call without a panic failed")
	}
	if Do(slog.New(slog.DiscardHandler), "testing", func() { panic("a text") }) {
		t.Error("a panic is no failure")
	}
}

// TestGoexitPasses holds that a goroutine which ends itself (as tests do) is not taken for one that panics.
func TestGoexitPasses(t *testing.T) {
	before, done := Count(), make(chan struct{})
	go func() {
		defer close(done)
		Do(nil, "testing", runtime.Goexit)
	}()
	<-done
	if Count() != before {
		t.Error("the end of a goroutine was counted")
	}
}

func TestCallAllocatesNothing(t *testing.T) {
	n := 0
	if got := testing.AllocsPerRun(100, func() { Do(nil, "testing", func() { n++ }) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
