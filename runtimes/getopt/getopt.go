// Package getopt has command lines read as getopt_long(3) of glibc reads them, for programs that take the place of one
// that uses it: unambiguous beginnings of long options, and its words for what is wrong with a command line.
//
// The one idea: the arguments are written out in full before package pflag reads them, which knows all else.
//
//	args, err := getopt.Expand(flags, os.Args[1:], true)
//	if err == nil {
//		err = getopt.Error(flags.Parse(args))
//	}
//
// Options that begin with "usernet-" are not the other program's. They are known in full alone, so that they make none
// of its beginnings ambiguous.
package getopt

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// ownPrefix begins the names of options that the other program has not.
const ownPrefix = "usernet-"

// Expand writes long options out in full: a name that is an option counts as that, else the one option that begins with
// it. permute has options taken from behind the first argument that is none as well, as glibc does unless the program
// forbids it. Names that are no beginning of any option stay as they are.
func Expand(f *pflag.FlagSet, args []string, permute bool) ([]string, error) {
	var out []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		takesNext := false
		switch {
		case arg == "--", !strings.HasPrefix(arg, "-") && !permute:
			return append(append(out, arg), args...), nil
		case strings.HasPrefix(arg, "--"):
			full, flag, err := long(f, arg)
			if err != nil {
				return nil, err
			}
			arg, takesNext = full, flag != nil && flag.NoOptDefVal == "" && !strings.Contains(full, "=")
		case strings.HasPrefix(arg, "-"):
			takesNext = shortTakesNext(f, arg[1:])
		}
		out = append(out, arg)
		if takesNext && len(args) > 0 {
			out, args = append(out, args[0]), args[1:]
		}
	}
	return out, nil
}

// long is an argument "--NAME" or "--NAME=VALUE" with the option's whole name, and the option; nil: there is none.
func long(f *pflag.FlagSet, arg string) (string, *pflag.Flag, error) {
	name, value, valued := strings.Cut(arg[2:], "=")
	flag := f.Lookup(name)
	if flag == nil {
		found := beginningWith(f, name)
		if len(found) > 1 {
			text := fmt.Sprintf("option '%s' is ambiguous; possibilities:", arg)
			for _, one := range found {
				text += " '--" + one.Name + "'"
			}
			return "", nil, errors.New(text)
		}
		if len(found) == 0 {
			return arg, nil, nil // pflag says that it is unknown
		}
		flag = found[0]
	}
	if !valued {
		return "--" + flag.Name, flag, nil
	}
	if flag.NoOptDefVal != "" {
		return "", nil, fmt.Errorf("option '--%s' doesn't allow an argument", flag.Name)
	}
	return "--" + flag.Name + "=" + value, flag, nil
}

// beginningWith are the options of the other program that begin with name, in the order of their definition.
func beginningWith(f *pflag.FlagSet, name string) (found []*pflag.Flag) {
	f.VisitAll(func(flag *pflag.Flag) {
		if strings.HasPrefix(flag.Name, name) && !strings.HasPrefix(flag.Name, ownPrefix) {
			found = append(found, flag)
		}
	})
	return found
}

// shortTakesNext says whether the value of the last of some short options is the next argument.
func shortTakesNext(f *pflag.FlagSet, letters string) bool {
	for i := range letters {
		flag := f.ShorthandLookup(letters[i : i+1])
		if flag == nil {
			return false // pflag says that it is unknown
		}
		if flag.NoOptDefVal == "" {
			return i == len(letters)-1
		}
	}
	return false
}

// Error is what pflag says of a command line, in getopt's words, by which callers of the other program know what is
// wrong: Podman looks for "unrecognized option '--NAME".
func Error(err error) error {
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		return fmt.Errorf("unrecognized option '--%s'", unknown.GetSpecifiedName())
	case errors.As(err, &unknown):
		return fmt.Errorf("invalid option -- '%s'", unknown.GetSpecifiedName())
	case errors.As(err, &missing) && missing.GetSpecifiedShortnames() == "":
		return fmt.Errorf("option '--%s' requires an argument", missing.GetSpecifiedName())
	case errors.As(err, &missing):
		return fmt.Errorf("option requires an argument -- '%s'", missing.GetSpecifiedName())
	case errors.As(err, &invalid):
		return fmt.Errorf("option '--%s': %w", invalid.GetFlag().Name, invalid.Unwrap())
	}
	return err
}
