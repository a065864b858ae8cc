package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// commands calls f for each command that is shown, with its words behind `usernet`.
func commands(root *cobra.Command, f func(path string, c *cobra.Command)) {
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && c.Name() != "completion" && c.Name() != "help" {
			f(strings.TrimPrefix(c.CommandPath(), "usernet "), c)
			commands(c, f)
		}
	}
}

func TestEachCommandHasItsPage(t *testing.T) {
	seen := map[string]bool{}
	commands(rootCommand(), func(path string, c *cobra.Command) {
		seen[path] = true
		p, ok := pages[path]
		if !ok {
			t.Errorf("%s has no page in help.go", path)
		}
		if c.GroupID == "" && !strings.Contains(path, " ") {
			t.Errorf("%s is in no group", path)
		}
		for name := range p.flags {
			if c.Flags().Lookup(name) == nil {
				t.Errorf("%s has no flag --%s to complete", path, name)
			}
		}
		for _, line := range strings.Split(c.Example, "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "usernet "+path) {
				t.Errorf("%s: the example %q is of another command", path, line)
			}
		}
		if strings.HasSuffix(c.Short, ".") || c.Short == "" {
			t.Errorf("%s: %q is to be a phrase without a full stop", path, c.Short)
		}
	})
	for path := range pages {
		if !seen[path] {
			t.Errorf("there is a page for %s and no such command", path)
		}
	}
}

// TestExamplesParse holds the flags of all examples against the commands.
func TestExamplesParse(t *testing.T) {
	for path, p := range pages {
		for _, line := range strings.Split(p.examples, "\n") {
			for _, command := range strings.FieldsFunc(line, func(r rune) bool { return r == ';' || r == '#' || r == '&' }) {
				words := strings.Fields(strings.ReplaceAll(command, "'", ""))
				if len(words) == 0 || words[0] != "usernet" {
					continue
				}
				root := rootCommand()
				c, rest, err := root.Find(words[1:])
				if err == nil {
					err = c.ParseFlags(rest)
				}
				if err != nil {
					t.Errorf("example of %s: %q: %v", path, command, err)
				}
			}
		}
	}
}

func TestManPages(t *testing.T) {
	dir := t.TempDir()
	if err := writeManPages(rootCommand(), dir); err != nil {
		t.Fatal(err)
	}
	commands(rootCommand(), func(path string, _ *cobra.Command) {
		b, err := os.ReadFile(filepath.Join(dir, "usernet-"+strings.ReplaceAll(path, " ", "-")+".1"))
		if err != nil {
			t.Error(err)
			return
		}
		for _, want := range []string{".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH SEE ALSO"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("the page of %s lacks %s", path, want)
			}
		}
	})
	b, err := os.ReadFile(filepath.Join(dir, "usernet-run.1"))
	if err != nil || !strings.Contains(string(b), ".TP\n.B \\-e, \\-\\-env stringArray\n") {
		t.Errorf("the page of run: %v %s", err, b)
	}
	if got := roff(".a\n'b\n\\c -d"); got != "\\&.a\n\\&'b\n\\ec \\-d" {
		t.Errorf("%q", got)
	}
}
