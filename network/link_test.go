package network

import (
	"slices"
	"testing"
)

func TestParseLink(t *testing.T) {
	for text, want := range map[string]Link{
		"db":        {"db", "db"},
		"db:store":  {"db", "store"},
		"/db:store": {"db", "store"},
		"":          {},
		":":         {},
		"/":         {},
		"db:":       {},
		":store":    {},
		"a:b:c":     {},
	} {
		got, err := ParseLink(text)
		if got != want || (err == nil) != (want != Link{}) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if got := ParseLinks([]string{"a", ":", "b:c"}); !slices.Equal(got, []Link{{"a", "a"}, {"b", "c"}}) {
		t.Errorf("a list with one that is no link: %v", got)
	}
}
