package main

import (
	"fmt"
	"testing"
)

func TestUnreadVariables(t *testing.T) {
	for environ, want := range map[string]string{
		"USERNET_LOG_LEVEL":                  "[]",
		"USERNET_HOST":                       "[]",
		"USERNET_TEST_BIN":                   "[]",
		"OTHER_LOG_LEVL":                     "[]",
		"USERNET_LOG_LEVL":                   "[nothing reads the variable USERNET_LOG_LEVL of the environment: did you mean USERNET_LOG_LEVEL?]",
		"USERNET_HOTS":                       "[nothing reads the variable USERNET_HOTS of the environment: did you mean USERNET_HOST?]",
		"USERNET_SOMETHING_THAT_IS_NOT_HERE": "[nothing reads the variable USERNET_SOMETHING_THAT_IS_NOT_HERE of the environment]",
	} {
		if got := fmt.Sprint(unreadVariables([]string{"PATH=/bin", environ + "=x"})); got != want {
			t.Errorf("%s: %s, want %s", environ, got, want)
		}
	}
}
