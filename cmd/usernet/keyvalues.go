package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// keyValues turns KEY=VALUE into a map; KEY alone has the value "".
func keyValues(list []string) map[string]string {
	m := map[string]string{}
	for _, kv := range list {
		k, v, _ := strings.Cut(kv, "=")
		m[k] = v
	}
	return m
}

// readKeyValues is what files hold, a KEY=VALUE on each line, and then list. Empty lines and those that begin with #
// do not count.
func readKeyValues(files, list []string) ([]string, error) {
	var all []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		s := bufio.NewScanner(f)
		for n := 1; s.Scan(); n++ {
			line := strings.TrimLeft(s.Text(), " \t")
			if n == 1 {
				line = strings.TrimPrefix(line, "\ufeff") // the byte order mark that some editors write
			}
			if line == "" || line[0] == '#' {
				continue
			}
			key, _, _ := strings.Cut(line, "=")
			if key == "" || strings.ContainsAny(key, " \t") {
				_ = f.Close()
				return nil, fmt.Errorf("%s: line %d: variable %q is empty or contains whitespaces", name, n, key)
			}
			all = append(all, line)
		}
		_ = f.Close()
		if err := s.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return append(all, list...), nil
}

// lastOfEach leaves each variable once, with the last value that it was given: execve(2) passes on what it gets, and
// most programs would see the first.
func lastOfEach(env []string) []string {
	at := map[string]int{}
	var list []string
	for _, e := range env {
		k, _, _ := strings.Cut(e, "=")
		if i, ok := at[k]; ok {
			list[i] = e
			continue
		}
		at[k] = len(list)
		list = append(list, e)
	}
	return list
}

// resolveEnv gives NAME alone the caller's value, and leaves it out where the caller has none.
func resolveEnv(list []string) []string {
	var env []string
	for _, e := range list {
		if !strings.Contains(e, "=") {
			v, ok := os.LookupEnv(e)
			if !ok {
				continue
			}
			e += "=" + v
		}
		env = append(env, e)
	}
	return env
}
