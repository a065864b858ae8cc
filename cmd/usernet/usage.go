package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// dockerOnly are commands of docker's that usernet does not have, with what to do instead.
var dockerOnly = map[string]string{
	"build":   "there are no images: run programs of this machine, or a directory with --rootfs",
	"commit":  "there are no images",
	"cp":      "a container's files are the caller's, or the directory given with --rootfs",
	"create":  "`usernet run` creates a container and starts it",
	"images":  "there are no images: run programs of this machine, or a directory with --rootfs",
	"pause":   "`usernet kill -s STOP` stops the first process",
	"pull":    "there are no images: run programs of this machine, or a directory with --rootfs",
	"push":    "there are no images",
	"unpause": "`usernet kill -s CONT` lets the first process go on",
	"volume":  "there are no volumes: a container's files are the caller's, or the directory given with --rootfs",
}

// addDockerOnly adds hidden commands that say why they are none.
func addDockerOnly(root *cobra.Command) {
	for name, instead := range dockerOnly {
		root.AddCommand(
			&cobra.Command{
				Use:                name,
				Hidden:             true,
				DisableFlagParsing: true,
				RunE: func(*cobra.Command, []string) error {
					return fmt.Errorf("usernet has no command %s: %s", name, instead)
				},
			},
		)
	}
}

// valueNames are what help calls the values of flags whose type's name says nothing. A name in backquotes in the
// usage goes before.
var valueNames = map[string]string{
	"add-host":      "NAME:IP",
	"alias":         "NAME",
	"allow-egress":  "RULE",
	"aux-address":   "NAME=ADDRESS",
	"cap-add":       "CAPABILITY",
	"cap-drop":      "CAPABILITY",
	"confine":       "MEASURE",
	"device":        "PATH",
	"dns":           "ADDRESS",
	"dns-domain":    "DOMAIN=SERVER",
	"dns-option":    "OPTION",
	"dns-search":    "DOMAIN",
	"driver-opt":    "KEY=VALUE",
	"env":           "NAME[=VALUE]",
	"env-file":      "FILE",
	"expose":        "PORT",
	"filter":        "KEY=VALUE",
	"gateway":       "ADDRESS",
	"ip-range":      "CIDR",
	"ipam-opt":      "KEY=VALUE",
	"label":         "KEY=VALUE",
	"label-file":    "FILE",
	"link":          "NAME[:ALIAS]",
	"link-local-ip": "ADDRESS",
	"network":       "NETWORK",
	"tmpfs":         "TARGET[:OPTIONS]",
	"volume":        "SOURCE:TARGET",
	"network-alias": "NAME", "opt": "KEY=VALUE", "publish": "PORTS", "security-opt": "OPTION", "subnet": "CIDR",
}

// nameValues gives flags of list types a name for their values, as pflag takes it: in backquotes in the usage.
func nameValues(flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if !strings.HasPrefix(f.Value.Type(), "string") || f.Value.Type() == "string" ||
			strings.Contains(f.Usage, "`") {
			return
		}
		name := cmp.Or(valueNames[f.Name], "VALUE")
		switch {
		case strings.Contains(f.Usage, name):
			f.Usage = strings.Replace(f.Usage, name, "`"+name+"`", 1)
		default:
			f.Usage = "`" + name + "`: " + f.Usage
		}
	})
}

// goTexts are errors of Go's parsers inside those of flags, with what a user can do about them.
var goTexts = []struct {
	form string // of package regexp
	text string
}{
	{`strconv\.ParseBool: parsing "[^"]*": invalid syntax`, "give true or false"},
	{`strconv\.\w+: parsing "[^"]*": invalid syntax`, "give a whole number"},
	{`strconv\.\w+: parsing "[^"]*": value out of range`, "the number is out of range"},
	{`time: (invalid duration|unknown unit|missing unit)[^:]*$`, "give a duration, such as 5s, 10m or 1h30m"},
}

// flagError says what is wrong with a flag in the user's words.
func flagError(c *cobra.Command, err error) error {
	text := plainTexts(err.Error())
	return runError{fmt.Errorf("%s\nSee '%s --help'", text, c.CommandPath())} // status 125, as docker's
}

// plainTexts replaces Go's texts about values of flags.
func plainTexts(text string) string {
	for _, g := range goTexts {
		text = regexp.MustCompile(g.form).ReplaceAllString(text, g.text)
	}
	return text
}

// withoutDashes takes the two dashes away that may stand between the first n arguments and a command, as `run` takes
// them.
func withoutDashes(args []string, n int) []string {
	if len(args) > n && args[n] == "--" {
		return slices.Delete(slices.Clone(args), n, n+1)
	}
	return args
}
