package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/usernet/usernet/daemon"
	"github.com/usernet/usernet/network"
)

// apply sets the flags that a table names and that are not set yet. Those in without are refused, with the reason.
func (c *configFile) apply(f *pflag.FlagSet, what string, table map[string]any, without map[string]string,
	path ...string) error {
	var known []string
	f.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && without[f.Name] == "" && f.Name != "help" && f.Name != "host" {
			known = append(known, f.Name)
		}
	})
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(table)) {
		at := append(slices.Clone(path), key)
		switch why := without[key]; {
		case why != "":
			errs = append(errs, c.wrong(why, at...))
			continue
		case !slices.Contains(known, key):
			errs = append(errs, c.unknown(what, known, at...))
			continue
		}
		values, err := flagValues(table[key], isList(f.Lookup(key)))
		if err != nil {
			errs = append(errs, c.wrong(fmt.Sprintf("%s: %v", key, err), at...))
			continue
		}
		if f.Changed(key) {
			continue // it was given in a way that goes before
		}
		for _, v := range values {
			if err := f.Set(key, v); err != nil {
				errs = append(errs, c.wrong(plainTexts(err.Error()), at...))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// isList says whether a flag may be given several times.
func isList(f *pflag.Flag) bool {
	_, list := f.Value.(pflag.SliceValue)
	return list || strings.Contains(f.Value.Type(), "Slice") || strings.Contains(f.Value.Type(), "Array")
}

// flagValues are a value of TOML as values of a flag: a table is a list of KEY=VALUE.
func flagValues(v any, list bool) ([]string, error) {
	switch v := v.(type) {
	case []any:
		if !list {
			return nil, errors.New("give one value, not a list")
		}
		var all []string
		for _, one := range v {
			text, err := flagValue(one)
			if err != nil {
				return nil, err
			}
			all = append(all, text)
		}
		return all, nil
	case map[string]any:
		if !list {
			return nil, errors.New("give a value, not a table")
		}
		var all []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			text, err := flagValue(v[key])
			if err != nil {
				return nil, err
			}
			all = append(all, key+"="+text)
		}
		return all, nil
	}
	text, err := flagValue(v)
	return []string{text}, err
}

func flagValue(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool, int64:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("a value of type %T is none of a flag: give a string, a whole number, true or false", v)
}

// options is the part with the options of new networks.
func (c *configFile) options() (map[string]string, error) {
	table, err := c.part(partOptions)
	if err != nil {
		return nil, err
	}
	options := map[string]string{}
	var errs []error
	for key, v := range flatten("", table) {
		text, err := flagValue(v)
		if err != nil {
			err = fmt.Errorf("%s: %w", key, err)
		} else {
			err = checkAnywhere(key, text)
		}
		if err != nil {
			at := []string{partOptions, key}
			if !c.has(at...) { // it is not quoted
				at = append(at[:1], strings.Split(key, ".")...)
			}
			errs = append(errs, c.wrong(err.Error(), at...))
		}
		options[key] = text
	}
	return options, errors.Join(errs...)
}

// checkAnywhere refuses an option that networks of no driver can have.
func checkAnywhere(name, value string) (err error) {
	for _, d := range network.Drivers {
		one := daemon.CheckOptions(d.Name, map[string]string{name: value})
		if one == nil {
			return nil
		}
		err = cmp.Or(err, one)
	}
	return err
}

// flatten joins the keys of tables with dots: an option's name has dots, which make tables in TOML unless it is quoted.
func flatten(prefix string, table map[string]any) map[string]any {
	all := map[string]any{}
	for key, v := range table {
		if inner, ok := v.(map[string]any); ok {
			maps.Copy(all, flatten(prefix+key+".", inner))
			continue
		}
		all[prefix+key] = v
	}
	return all
}

// networks is the part with networks to make, which have the options defaults unless they say something else.
func (c *configFile) networks(defaults map[string]string) ([]networkFlags, error) {
	v, ok := c.values[partNetworks]
	if !ok {
		return nil, nil
	}
	tables, ok := v.([]any)
	if !ok {
		return nil, c.wrong("networks is a list of tables: begin each with [[networks]]", partNetworks)
	}
	var list []networkFlags
	var errs []error
	seen := map[string]bool{}
	for i, v := range tables {
		at := []string{partNetworks, fmt.Sprint(i)}
		table, ok := v.(map[string]any)
		name, named := table["name"].(string)
		if !ok || !named || name == "" {
			errs = append(errs, c.wrong("a network has no name: give name = \"...\"", at...))
			continue
		}
		if seen[name] { // the first would be made, and this one taken for it
			errs = append(errs, c.wrong(fmt.Sprintf("network %q is here twice", name), at...))
			continue
		}
		seen[name] = true
		rest := maps.Clone(table)
		delete(rest, "name")
		var n networkFlags
		f := pflag.NewFlagSet("network", pflag.ContinueOnError)
		n.add(f)
		err := c.apply(f, "a network", rest, nil, at...)
		if err == nil {
			if err = n.complete(f, name); err == nil {
				err = n.check(defaults)
			}
			if err != nil {
				err = c.wrong(err.Error(), at...)
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, n)
	}
	return list, errors.Join(errs...)
}

// check refuses options that the network's driver does not have, and values that they cannot have.
func (n *networkFlags) check(defaults map[string]string) error {
	options := map[string]string{}
	if n.spec.ConfigFrom == "" {
		maps.Copy(options, defaults)
	}
	maps.Copy(options, n.spec.Options)
	return daemon.CheckOptions(cmp.Or(n.spec.Driver, network.Drivers[0].Name), options)
}
