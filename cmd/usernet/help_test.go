package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// TestCommandsAreTheSameAlone holds the tree that is made for one command against the whole one.
func TestCommandsAreTheSameAlone(t *testing.T) {
	whole := rootCommand()
	for name := range makers() {
		together, _, err := whole.Find([]string{name})
		if err != nil || together.Name() != name {
			t.Fatalf("%s makes no command of that name: %v", name, err)
		}
		alone, _, err := commandTree(name).Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(alone.Root().Commands()); n != 1 {
			t.Errorf("%s is made together with %d others", name, n-1)
		}
		texts := map[*cobra.Command]string{}
		for _, c := range []*cobra.Command{together, alone} {
			texts[c] = manPage(c)
			commands(c, func(_ string, sub *cobra.Command) { texts[c] += manPage(sub) })
		}
		if texts[alone] != texts[together] {
			t.Errorf("%s alone:\n%s\ntogether:\n%s", name, texts[alone], texts[together])
		}
	}
}

// TestHelpNamesValues finds flags whose values help calls by a type of Go's.
func TestHelpNamesValues(t *testing.T) {
	commands(rootCommand(), func(path string, c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if kind, _ := pflag.UnquoteUsage(f); !f.Hidden && (strings.HasPrefix(kind, "string") && kind != "string" ||
				kind == "list") {
				t.Errorf("%s --%s: help calls its value %q", path, f.Name, kind)
			}
		})
	})
}

func TestFlagErrorsAreForUsers(t *testing.T) {
	for _, test := range []struct {
		args  []string
		words string
	}{
		{[]string{"ps", "-n", "foo"}, `invalid argument "foo" for "-n, --last" flag: give a whole number`},
		{[]string{"ps", "--all=perhaps"}, "give true or false"},
		{[]string{"serve", "--limit-tcp", "99999999999999999999"}, "give a whole number from 0 to 2147483647"},
		{[]string{"flows", "--interval", "5"}, "give a duration"},
		{[]string{"flows", "--interval", "soon"}, "give a duration"},
		{[]string{"pull", "busybox"}, "usernet has no command pull: there are no images"},
		{[]string{"pul"}, `unknown command "pul" for "usernet"`},
		{[]string{"netwrk"}, "network"},
	} {
		root := rootCommand()
		root.SetArgs(test.args)
		err := root.Execute()
		if err == nil || !strings.Contains(err.Error(), test.words) || strings.Contains(err.Error(), "strconv") ||
			strings.Contains(err.Error(), "kill") {
			t.Errorf("%q: %v, want %s", test.args, err, test.words)
		}
	}
}

func TestWithoutDashes(t *testing.T) {
	for _, test := range [][2]string{{"c ls -l", "c ls -l"}, {"c -- ls -l", "c ls -l"}, {"c -- -- ls", "c -- ls"},
		{"c ls --", "c ls --"}, {"c", "c"}} {
		if got := strings.Join(withoutDashes(strings.Fields(test[0]), 1), " "); got != test[1] {
			t.Errorf("%s becomes %s, want %s", test[0], got, test[1])
		}
	}
}

// TestExamplesParse holds the flags of all examples against the commands.
func TestExamplesParse(t *testing.T) {
	for path, p := range pages {
		for _, line := range strings.Split(p.examples, "\n") {
			for _, command := range strings.FieldsFunc(line,
				func(r rune) bool { return r == ';' || r == '#' || r == '&' }) {
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

// TestCommandsInTextExist holds what the documentation calls commands, in the middle of its sentences, against the
// commands and flags that there are. Blocks of commands are run by the end-to-end tests.
func TestCommandsInTextExist(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	span := regexp.MustCompile("`usernet ([^`]+)`")
	for _, path := range append(pages, "../../README.md", "../../SECURITY.md", "../../CONTRIBUTING.md",
		"../../CHANGELOG.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range span.FindAllStringSubmatch(string(text), -1) {
			words := strings.Fields(strings.ReplaceAll(m[1], "\n", " "))
			root := rootCommand()
			root.InitDefaultCompletionCmd() // as Execute does
			c, rest, err := root.Find(words)
			if err != nil || c.Parent() == nil && !strings.HasPrefix(words[0], "-") {
				t.Errorf("%s: %s: no such command (%v)", path, m[0], err)
				continue
			}
			for _, w := range rest {
				if w == "--" {
					break // a command of the container's
				}
				name, _, _ := strings.Cut(strings.TrimPrefix(w, "--"), "=")
				if strings.HasPrefix(w, "--") && c.Flags().Lookup(name) == nil && c.InheritedFlags().Lookup(name) ==
					nil {
					t.Errorf("%s: %s: no such flag %s", path, m[0], w)
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
	if err != nil || !strings.Contains(string(b), ".TP\n.B \\-e, \\-\\-env NAME[=VALUE]\n") {
		t.Errorf("the page of run: %v %s", err, b)
	}
	if got := roff(".a\n'b\n\\c -d"); got != "\\&.a\n\\&'b\n\\ec \\-d" {
		t.Errorf("%q", got)
	}
}
