package names

import (
	"slices"
	"strings"
	"testing"
)

func TestParseLink(t *testing.T) {
	for text, want := range map[string]Link{
		"db":       {"db", "db"},
		"db:store": {"db", "store"},
		"":         {},
		":":        {},
		"db:":      {},
		":store":   {},
		"a:b:c":    {},
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

func FuzzParseLink(f *testing.F) {
	for _, s := range []string{"db", "db:store", "::", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLink(s)
		if err != nil {
			return
		}
		if l.Target == "" || l.Alias == "" || strings.Contains(l.Target+l.Alias, ":") || s != l.Target && s != l.Target+":"+l.Alias {
			t.Errorf("%q is read as %+v", s, l)
		}
	})
}
