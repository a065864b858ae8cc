package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/usernet/usernet/internal/errdefs"
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
