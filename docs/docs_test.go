package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
)

// lookingCloser is the one section that is about no error.
const lookingCloser = "looking-closer"

// TestEachTopicHasASectionAndEachSectionATopic holds the topics of errors and the page to each other.
func TestEachTopicHasASectionAndEachSectionATopic(t *testing.T) {
	var anchors []string
	for _, s := range Sections(Troubleshooting) {
		anchors = append(anchors, s.Anchor)
		if s.Anchor == lookingCloser {
			continue
		}
		if !slices.Contains(errdefs.Topics, errdefs.Topic(s.Anchor)) {
			t.Errorf("section %q is of no topic of package errdefs", s.Heading)
		}
		for _, part := range []string{"**What you see.** ", "**Why.** ", "**What to do.** "} {
			if strings.Count(s.Text, part) != 1 {
				t.Errorf("section %q has not one part %q", s.Heading, part)
			}
		}
	}
	for _, topic := range errdefs.Topics {
		if !slices.Contains(anchors, string(topic)) {
			t.Errorf("topic %s has no section", topic)
		}
	}
}

// TestTopicsAreListed reads the constants: one that is in no list would be checked by nothing.
func TestTopicsAreListed(t *testing.T) {
	src, err := os.ReadFile(filepath.Join("..", "internal", "errdefs", "topic.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^\tTopic\w+ +Topic = "([a-z0-9-]+)"$`).FindAllStringSubmatch(string(src), -1)
	for _, m := range found {
		if !slices.Contains(errdefs.Topics, errdefs.Topic(m[1])) {
			t.Errorf("%s is not in Topics", m[1])
		}
	}
	if len(found) != len(errdefs.Topics) {
		t.Errorf("%d constants and %d in the list", len(found), len(errdefs.Topics))
	}
}

// TestLinksLeadSomewhere follows the links of troubleshooting.md.
func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([a-z]*(?:\.md)?)(?:#([a-z0-9-]+))?\)`)
	for _, m := range link.FindAllStringSubmatch(Troubleshooting, -1) {
		page := Troubleshooting
		if m[1] != "" {
			b, err := os.ReadFile(m[1])
			if err != nil {
				t.Error(err)
				continue
			}
			page = string(b)
		}
		if m[2] == "" {
			continue
		}
		var anchors []string
		for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
			anchors = append(anchors, Anchor(h[1]))
		}
		if !slices.Contains(anchors, m[2]) {
			t.Errorf("%s leads to no heading", m[0])
		}
	}
}

func TestAnchor(t *testing.T) {
	for heading, want := range map[string]string{
		"The host's services": "the-hosts-services", "usernet does": "usernet-does",
		"A port below 1024":        "a-port-below-1024",
		"There is no /dev/net/tun": "there-is-no-devnettun", "Self-made": "self-made",
	} {
		if got := Anchor(heading); got != want {
			t.Errorf("%q: %q, want %q", heading, got, want)
		}
	}
}
