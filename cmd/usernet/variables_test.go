package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestUnreadVariables(t *testing.T) {
	for environ, want := range map[string]string{
		"USERNET_LOG_LEVEL":                  "",
		"USERNET_HOST":                       "",
		"USERNET_TEST_BIN":                   "",
		"OTHER_LOG_LEVL":                     "",
		"USERNET_LOG_LEVL":                   ": did you mean USERNET_LOG_LEVEL?",
		"USERNET_HOTS":                       ": did you mean USERNET_HOST?",
		"USERNET_SOMETHING_THAT_IS_NOT_HERE": " ",
	} {
		if want != "" {
			want = "nothing reads the variable " + environ + " of the environment" + strings.TrimSpace(want)
		}
		want = "[" + want + "]"
		if got := fmt.Sprint(unreadVariables([]string{"PATH=/bin", environ + "=x"})); got != want {
			t.Errorf("%s: %s, want %s", environ, got, want)
		}
	}
}
