package api

import (
	"strings"
	"syscall"
	"testing"
)

// TestAdviceWhereNothingAnswers: a user who may not connect to the socket is not told to start a daemon.
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
