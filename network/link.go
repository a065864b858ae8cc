package network

import (
	"strings"

	"github.com/usernet/usernet/internal/errdefs"
)

// Link is a container that another one has a name for.
type Link struct {
	Target string // its name or id
	Alias  string // what the other one calls it
}

// String is what ParseLink reads, and what records have.
func (l Link) String() string { return l.Target + ":" + l.Alias }

// ParseLink reads NAME[:ALIAS]; the alias of a plain name is the name. Docker's API has a slash before names.
func ParseLink(s string) (Link, error) {
	target, alias, ok := strings.Cut(strings.TrimPrefix(s, "/"), ":")
	if !ok {
		alias = target
	}
	if target == "" || alias == "" || strings.Contains(alias, ":") {
		return Link{}, errdefs.Invalid("bad format for links: %s", s)
	}
	return Link{Target: target, Alias: alias}, nil
}

// ParseLinks reads a list of a record, and leaves out what is no link.
func ParseLinks(list []string) []Link {
	var links []Link
	for _, s := range list {
		if l, err := ParseLink(s); err == nil {
			links = append(links, l)
		}
	}
	return links
}
