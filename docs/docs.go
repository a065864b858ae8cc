// Package docs has the pages of this folder that the program shows itself, and reads their sections. The commands
// explain and doctor call it.
package docs

import (
	_ "embed"
	"strings"
	"unicode"
)

// Troubleshooting is the page of that name.
//
//go:embed troubleshooting.md
var Troubleshooting string

// Section is a part of a page below a heading of the second level.
type Section struct {
	Anchor, Heading, Text string
}

// Sections are those of a page, in its order.
func Sections(page string) (list []Section) {
	for _, part := range strings.Split(page, "\n## ")[1:] {
		heading, text, _ := strings.Cut(part, "\n")
		list = append(list, Section{Anchor(heading), heading, strings.TrimSpace(text)})
	}
	return list
}

// Anchor is what a link to a heading has behind its #, as Git hosts make it: in lower case, with dashes for blanks and
// without punctuation.
func Anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}
