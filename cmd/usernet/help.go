package main

import (
	"maps"
	"strings"

	"github.com/spf13/cobra"
)

// The groups of commands in the order of the help text.
const (
	groupContainers = "containers"
	groupNetworks   = "networks"
	groupDaemon     = "daemon"
	groupRuntimes   = "runtimes"
)

// page is what a command has beside its flags: where it stands in the help text, examples, and what completes its
// arguments.
type page struct {
	group    string
	long     string
	examples string
	args     []completer // by position; the last one goes on where more is set
	more     bool
	flags    map[string]completer
}

// pages are those of all commands.
var pages = func() map[string]page {
	all := maps.Clone(usersPages)
	maps.Copy(all, enginesPages)
	return all
}()

// addPages gives each command its group, examples and completion.
func addPages(root *cobra.Command) {
	root.AddGroup(
		&cobra.Group{
			ID:    groupContainers,
			Title: "Containers:"},
		&cobra.Group{ID: groupNetworks,
			Title: "Networks:",
		},
		&cobra.Group{
			ID:    groupRuntimes,
			Title: "For container engines:",
		},
		&cobra.Group{ID: groupDaemon, Title: "The daemon and this machine:"},
	)
	root.SetHelpCommandGroupID(groupDaemon)
	root.SetCompletionCommandGroupID(groupDaemon)
	each := func(c *cobra.Command, p page) {
		nameValues(c.Flags())
		c.GroupID, c.Long = p.group, strings.ReplaceAll(p.long, "\n", " ")
		if p.examples != "" {
			c.Example = "  " + strings.ReplaceAll(p.examples, "\n", "\n  ")
		}
		if c.ValidArgsFunction == nil && c.Name() != "run" { // the words behind run are a command of the machine
			c.ValidArgsFunction = p.complete
		}
		for name, f := range p.flags {
			if c.Flags().Lookup(name) != nil {
				_ = c.RegisterFlagCompletionFunc(name, f.function) // fails for a flag that is not there
			}
		}
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			each(sub, pages[strings.TrimPrefix(sub.CommandPath(), root.Name()+" ")])
			walk(sub)
		}
	}
	walk(root)
}
