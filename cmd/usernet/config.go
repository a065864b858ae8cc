package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usernet/usernet/confine"
	"github.com/usernet/usernet/daemon"
	"github.com/usernet/usernet/internal/errdefs"
)

// What serve does is said by its flags, by the environment, by the configuration's file, and by what usernet takes
// where nothing is said: the first of them counts.

// flagOnly are flags of serve that are for one start, and so for no file.
var flagOnly = map[string]string{
	"takeover": "takeover is for one start of the daemon: give it as a flag",
	"config":   "a configuration cannot name another one",
}

// flagVariable is the environment variable of a flag of serve.
func flagVariable(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// configure sets the flags of serve that were not given from the environment and from the configuration's file.
func (o *serveOptions) configure(f *pflag.FlagSet) error {
	if err := fromEnvironment(f); err != nil {
		return err
	}
	name := o.configFile
	if name == "" {
		var err error
		if name, err = configPath(); err != nil {
			return nil // without a home there is no such file
		}
	}
	c, err := readConfig(name)
	if errors.Is(err, os.ErrNotExist) && o.configFile == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return o.applyConfig(c, f)
}

// applyConfig takes what a configuration's file says.
func (o *serveOptions) applyConfig(c *configFile, f *pflag.FlagSet) error {
	table, err := c.part(partServe)
	err = errors.Join(c.checkParts(), err)
	if table != nil {
		err = errors.Join(err, c.apply(f, "usernet serve", table, flagOnly, partServe))
	}
	options, optErr := c.options()
	networks, netErr := c.networks(options)
	o.networkOptions, o.networks = options, networks
	return inOrder(errors.Join(err, optErr, netErr))
}

// inOrder has the mistakes of a configuration in the order of their places.
func inOrder(err error) error {
	var errs []error
	for _, one := range mistakes(err) {
		errs = append(errs, one)
	}
	return errdefs.About(errdefs.TopicConfiguration, errors.Join(errs...))
}

// fromEnvironment sets the flags that were not given and whose variables are set. A flag that may be repeated has its
// values separated by blanks, or by commas where the flag takes them.
func fromEnvironment(f *pflag.FlagSet) error {
	var errs []error
	f.VisitAll(func(f2 *pflag.Flag) {
		v, ok := os.LookupEnv(flagVariable(f2.Name))
		if !ok || f2.Changed || f2.Name == "help" || f2.Name == "host" {
			return
		}
		values := []string{v}
		if isList(f2) {
			values = strings.Fields(v)
		}
		for _, v := range values {
			if err := f.Set(f2.Name, v); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s", flagVariable(f2.Name), plainTexts(err.Error())))
				return
			}
		}
	})
	return errors.Join(errs...)
}

// check finds mistakes in a configuration, which has been applied, that no flag finds by itself.
func (o *serveOptions) check(c *configFile) error {
	_, levelErr := logger(o.level, "text")
	_, formatErr := logger("info", o.format)
	_, confineErr := confine.Parse(o.confine)
	_, dnsErr := o.resolvers()
	var errs []error
	for _, one := range []struct {
		err   error
		flags []string // the first that is there is where the mistake is
	}{
		{levelErr, []string{"log-level"}},
		{formatErr, []string{"log-format"}},
		{confineErr, []string{"confine"}},
		{dnsErr, []string{"dns", "dns-domain"}},
		{o.cluster.check(), []string{"cluster-store", "cluster-join", "docker-store", "cluster-key"}},
	} {
		if one.err == nil {
			continue
		}
		at := slices.IndexFunc(one.flags, func(flag string) bool { return c.has(partServe, flag) })
		errs = append(errs, c.wrong(one.err.Error(), partServe, one.flags[max(at, 0)]))
	}
	return errors.Join(errs...)
}

// networksTimeout bounds how long the networks of a configuration may delay the daemon's start: those that span hosts
// wait for their store.
const networksTimeout = 10 * time.Second

// makeNetworks makes the networks of the configuration that are not there yet. One that cannot be made is no reason to
// leave all containers without a network.
func (o *serveOptions) makeNetworks(d *daemon.Daemon, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), networksTimeout)
	defer cancel()
	for _, n := range o.networks {
		if _, err := d.Network(n.spec.Name); err == nil {
			continue
		}
		if _, warning, err := d.CreateNetwork(ctx, n.spec); err != nil {
			log.Error("network of the configuration is not made", "network", n.spec.Name, "error", err)
		} else if warning != "" {
			log.Warn(warning, "network", n.spec.Name)
		}
	}
}

func configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check the configuration of the daemon",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:   "check [FILE]",
		Short: "Find mistakes in a configuration",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return checkConfig(name)
		},
	})
	return c
}

// mistakes are those with a place that err is made of, in the order of their places.
func mistakes(err error) []*configError {
	var list []*configError
	switch err := err.(type) {
	case *configError:
		return []*configError{err}
	case interface{ Unwrap() []error }:
		for _, e := range err.Unwrap() {
			list = append(list, mistakes(e)...)
		}
	case interface{ Unwrap() error }:
		return mistakes(err.Unwrap())
	}
	slices.SortStableFunc(list, func(a, b *configError) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	return list
}

// checkConfig prints the mistakes in a configuration, the default one with "", and fails where there are some.
func checkConfig(name string) (err error) {
	if name == "" {
		if name, err = configPath(); err != nil {
			return err
		}
	}
	warnDaemonVariables(os.Stderr)
	c, err := readConfig(name)
	if err == nil {
		var o serveOptions
		f := o.flags(new(cobra.Command))
		err = errors.Join(o.applyConfig(c, f), o.check(c))
	}
	if err != nil {
		list := mistakes(err)
		if len(list) == 0 {
			return err
		}
		for _, one := range list {
			fmt.Fprintln(os.Stderr, one) // at the beginning of a line, where editors look for a place
		}
		fmt.Fprintln(os.Stderr, seeTopic+string(errdefs.TopicConfiguration))
		return exitCode(1)
	}
	fmt.Printf("%s: no mistakes\n", name)
	return nil
}
