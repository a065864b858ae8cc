package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// variablePrefix begins the names of usernet's variables of the environment.
const variablePrefix = "USERNET_"

// hostVariable is where commands find the daemon.
const hostVariable = variablePrefix + "HOST"

// otherVariables are those that are no flags of serve; "TEST_" and the like begin those of tests and of programs that
// usernet starts.
var otherVariables = []string{"HOST", "NETWORK", "NAME", "FAULTS", "USER", "PASTA_", "TEST_", "ENGINES", "SOAK"}

// unreadVariable is one of the environment that looks like usernet's and that nothing reads.
type unreadVariable struct {
	name    string
	instead string // the one that is most like it; "": none is
}

func (v unreadVariable) String() string {
	text := "nothing reads the variable " + v.name + " of the environment"
	if v.instead != "" {
		text += ": did you mean " + v.instead + "?"
	}
	return text
}

// unreadVariables looks through an environment, given as os.Environ gives it.
func unreadVariables(environ []string) []unreadVariable {
	var list []unreadVariable
	var known []string // behind the prefix
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		word, is := strings.CutPrefix(name, variablePrefix)
		if !is || slices.ContainsFunc(otherVariables, func(o string) bool {
			return word == o || strings.HasSuffix(o, "_") && strings.HasPrefix(word, o)
		}) {
			continue
		}
		if known == nil { // to make the flags takes a while, and such variables are rare
			known = append(known, "HOST", "NETWORK", "NAME")
			new(serveOptions).flags(new(cobra.Command)).VisitAll(func(f *pflag.Flag) {
				known = append(known, strings.TrimPrefix(flagVariable(f.Name), variablePrefix))
			})
		}
		if slices.Contains(known, word) {
			continue
		}
		v := unreadVariable{name: name}
		if near := nearest(word, known); near != "" {
			v.instead = variablePrefix + near
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b unreadVariable) int { return strings.Compare(a.name, b.name) })
	return list
}

// logUnreadVariables has the daemon say which variables do nothing.
func logUnreadVariables(log *slog.Logger) {
	for _, v := range unreadVariables(os.Environ()) {
		log.Warn("nothing reads a variable of the environment", "variable", v.name, "instead", v.instead)
	}
}

// warnHostVariable has a command say what is like the one variable that each command reads.
func warnHostVariable(w io.Writer) { warnVariables(w, true) }

// warnDaemonVariables has a command that starts a daemon, or checks its configuration, say which others do nothing.
func warnDaemonVariables(w io.Writer) { warnVariables(w, false) }

func warnVariables(w io.Writer, commands bool) {
	for _, v := range unreadVariables(os.Environ()) {
		if (v.instead == hostVariable) == commands {
			fmt.Fprintln(w, "usernet: warning:", v)
		}
	}
}
