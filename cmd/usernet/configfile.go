package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/spf13/pflag"

	"github.com/usernet/usernet/daemon"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// The configuration's file has three parts, in TOML:
//
//	[serve]            # flags of `usernet serve`, by their names
//	[network-options]  # options that new networks get unless they have them
//	[[networks]]       # networks to make at start: name, and flags of `usernet network create`
const (
	partServe    = "serve"
	partOptions  = "network-options"
	partNetworks = "networks"
)

// maxConfig bounds the file, in bytes.
const maxConfig = 1 << 20

// configFile is what a configuration's file says, and where.
type configFile struct {
	name   string
	values map[string]any
	at     map[string]unstable.Position // of a key, by the path that keyPath makes
}

// configError is a mistake in a configuration's file.
type configError struct {
	file         string
	line, column int
	msg          string
}

// Error is the mistake as compilers show it: FILE:LINE:COLUMN: what is wrong.
func (e *configError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.file, e.line, e.column, e.msg)
}

// configPath is where the configuration is looked for unless another file is named.
func configPath() (string, error) {
	dir, err := os.UserConfigDir() // $XDG_CONFIG_HOME, else ~/.config
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "usernet", "config.toml"), nil
}

// readConfig reads a configuration's file.
func readConfig(name string) (*configFile, error) {
	c, err := openConfig(name)
	return c, errdefs.About(errdefs.TopicConfiguration, err)
}

func openConfig(name string) (*configFile, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxConfig {
		return nil, fmt.Errorf("%s has %d bytes; %d are possible", name, info.Size(), maxConfig)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return parseConfig(name, b)
}

// parseConfig reads the text of one. What the keys mean is for apply and networks.
func parseConfig(name string, text []byte) (*configFile, error) {
	c := &configFile{name: name, values: map[string]any{}, at: map[string]unstable.Position{}}
	if err := toml.Unmarshal(text, &c.values); err != nil {
		var wrong *toml.DecodeError
		if errors.As(err, &wrong) {
			line, column := wrong.Position()
			return nil, &configError{name, line, column, strings.TrimPrefix(wrong.Error(), "toml: ")}
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c.locate(text)
	return c, nil
}

// keyPath is a key with its tables; the number of a table in an array is in it.
func keyPath(words ...string) string { return strings.Join(words, "\x00") }

// locate notes where the keys of a text are, which has been parsed.
func (c *configFile) locate(text []byte) {
	var p unstable.Parser
	p.Reset(text)
	var table []string
	count := map[string]int{}
	for p.NextExpression() {
		e := p.Expression()
		var words []string
		var first unstable.Position
		for it := e.Key(); it.Next(); {
			if words == nil {
				first = p.Shape(it.Node().Raw).Start
			}
			words = append(words, string(it.Node().Data))
		}
		switch e.Kind {
		case unstable.Table:
			table = words
			c.at[keyPath(words...)] = first
		case unstable.ArrayTable:
			name := keyPath(words...)
			table = append(words, fmt.Sprint(count[name]))
			count[name]++
			c.at[keyPath(table...)] = first
		case unstable.KeyValue:
			path := slices.Concat(table, words)
			for i := range path { // a key of several words names tables too
				if _, known := c.at[keyPath(path[:i+1]...)]; !known || i == len(path)-1 {
					c.at[keyPath(path[:i+1]...)] = first
				}
			}
		}
	}
}

// wrong is a mistake at a key.
func (c *configFile) wrong(msg string, path ...string) error {
	for n := len(path); n > 0; n-- { // a key in an inline table is where its table is
		if at, ok := c.at[keyPath(path[:n]...)]; ok {
			return &configError{c.name, at.Line, at.Column, msg}
		}
	}
	return &configError{c.name, 1, 1, msg}
}

// has says whether the file has a key.
func (c *configFile) has(path ...string) bool {
	_, ok := c.at[keyPath(path...)]
	return ok
}

// unknown is a key that there is not, with the nearest of those that there are.
func (c *configFile) unknown(what string, known []string, path ...string) error {
	key := path[len(path)-1]
	msg := fmt.Sprintf("%s has no key %q", what, key)
	if near := nearest(key, known); near != "" {
		msg += fmt.Sprintf(": did you mean %q?", near)
	}
	return c.wrong(msg, path...)
}

// checkParts refuses parts that there are not.
func (c *configFile) checkParts() error {
	parts := []string{partServe, partOptions, partNetworks}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(c.values)) {
		if !slices.Contains(parts, key) {
			errs = append(errs, c.unknown("the configuration", parts, key))
		}
	}
	return errors.Join(errs...)
}

// part is a table of the file; nil where there is none.
func (c *configFile) part(name string) (map[string]any, error) {
	v, ok := c.values[name]
	if !ok {
		return nil, nil
	}
	table, ok := v.(map[string]any)
	if !ok {
		return nil, c.wrong(fmt.Sprintf("%s is a table: begin it with [%s]", name, name), name)
	}
	return table, nil
}

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
	for i, v := range tables {
		at := []string{partNetworks, fmt.Sprint(i)}
		table, ok := v.(map[string]any)
		name, named := table["name"].(string)
		if !ok || !named || name == "" {
			errs = append(errs, c.wrong("a network has no name: give name = \"...\"", at...))
			continue
		}
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

// nearest is the word that is most like s, "" where none is.
func nearest(s string, words []string) string {
	best, distance := "", cmp.Or(len(s)/2, 1)+1
	for _, w := range words {
		if d := editDistance(s, w); d < distance {
			best, distance = w, d
		}
	}
	return best
}

// editDistance is how many letters have to be put in, taken out or changed to make b of a (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := corner
			if a[i] != b[j] {
				change++
			}
			corner = row[j+1]
			row[j+1] = min(change, row[j]+1, corner+1)
		}
	}
	return row[len(b)]
}
