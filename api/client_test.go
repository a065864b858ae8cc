package api

import (
	"strings"
	"syscall"
	"testing"
)

// TestAdviceWhereNothingAnswers: whoever may not connect is not helped by another daemon.
func TestAdviceWhereNothingAnswers(t *testing.T) {
	for err, want := range map[error]string{
		syscall.EACCES:          "another user's",
		syscall.ECONNREFUSED:    "usernet serve",
		missing{syscall.ENOENT}: "usernet serve",
	} {
		if got := advice(err); !strings.Contains(got, want) {
			t.Errorf("%v: %q lacks %q", err, got, want)
		}
	}
}
