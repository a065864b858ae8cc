package names

import (
	"errors"
	"strings"
)

// Link is a container that another one has a name for.
type Link struct {
	Target string // its name or id
	Alias  string // what the other one calls it
}

// errLink is the reason why ParseLink fails, in Docker's words.
var errLink = errors.New("bad format for links")

// ParseLink reads NAME[:ALIAS]; without ALIAS it is NAME.
func ParseLink(s string) (Link, error) {
	target, alias, ok := strings.Cut(s, ":")
	if !ok {
		alias = target
	}
	if target == "" || alias == "" || strings.Contains(alias, ":") {
		return Link{}, errLink
	}
	return Link{Target: target, Alias: alias}, nil
}

// ParseLinks reads a list, and leaves out what is no link.
func ParseLinks(list []string) []Link {
	var links []Link
	for _, s := range list {
		if l, err := ParseLink(s); err == nil {
			links = append(links, l)
		}
	}
	return links
}
