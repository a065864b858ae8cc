package main

import (
	"context"
	"io"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/usernet/usernet/network"
)

// redacted is what stands in the place of a secret.
const redacted = "(left out)"

// redactor takes secrets out of texts: those that are known, and what has the form of one.
type redactor struct {
	mu    sync.Mutex
	known []string
}

// minSecret is the length in bytes from which on a known secret is looked for: shorter ones are in other words too.
const minSecret = 5

// add notes a secret.
func (r *redactor) add(secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range secrets {
		if s = strings.TrimSpace(s); len(s) >= minSecret && !slices.Contains(r.known, s) {
			r.known = append(r.known, s)
		}
	}
}

// A form is one that secrets have in texts, and what stays of them.
type form struct {
	find *regexp.Regexp
	with string
}

// forms are compiled for the first text, not at every start of the program.
var forms = sync.OnceValue(func() []form {
	return []form{
		{regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s"'@]+@`), "${1}" + redacted + "@"},
		// user and password of a URL
		{regexp.MustCompile(`[?#&][\w-]*(?:token|key|secret|password)[\w-]*=[^&\s"']+`), redacted},
		{regexp.MustCompile(`(?i)([\w-]*(?:password|passwd|passphrase|secret|token|api_?key|credential)` +
			`[\w-]*["']?\s*[=:]\s*)("[^"]*"|'[^']*'|\(left out\)|[^\s,;"']+)`), "${1}" + redacted},
		{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}`), "${1} " + redacted},
		{regexp.MustCompile(`\b[A-Za-z0-9+/]{42,43}=`), redacted}, // a key of 32 bytes
	}
})

// clean is a text without secrets.
func (r *redactor) clean(text string) string {
	r.mu.Lock()
	known := slices.Clone(r.known)
	r.mu.Unlock()
	slices.SortFunc(known, func(a, b string) int { return len(b) - len(a) }) // the longer one before what is in it
	for _, s := range known {
		text = strings.ReplaceAll(text, s, redacted)
	}
	for _, f := range forms() {
		text = f.find.ReplaceAllString(text, f.with)
	}
	return text
}

// harmless are variables of the environment whose values are no secrets, and in many other words.
var harmless = []string{"PATH", "HOME", "TERM", "LANG", "SHELL", "USER", "LOGNAME", "PWD", "HOSTNAME", "container"}

// collectSecrets notes what must not be in the report: values of the environment and labels of containers, labels of
// networks, passwords in URLs, and what is in the files of tokens and keys that the daemon may have.
func (d *doctor) collectSecrets(ctx context.Context, _ io.Writer) error {
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, variablePrefix) {
			d.secretsOf(value)
		}
	}
	if name, err := configPath(); err == nil {
		if c, err := readConfig(name); err == nil {
			eachText(c.values, d.secretsOf)
		}
	}
	if !d.answers {
		return nil
	}
	var containers []network.Container
	if err := d.cl.Do(ctx, "GET", "/usernet/containers", nil, &containers); err != nil {
		return err
	}
	for _, c := range containers {
		for _, v := range c.Env {
			if name, value, _ := strings.Cut(v, "="); !slices.Contains(harmless, name) {
				d.clean.add(value)
			}
		}
		d.addLabels(c.Labels)
	}
	var networks []network.Network
	if err := d.cl.Do(ctx, "GET", "/usernet/networks", nil, &networks); err != nil {
		return err
	}
	for _, n := range networks {
		d.addLabels(n.Labels)
	}
	return nil
}

// addLabels notes the values of labels, but for those that other programs set.
func (d *doctor) addLabels(labels map[string]string) {
	for name, value := range labels {
		if !strings.HasPrefix(name, "com.docker.") && value != "true" && value != "false" {
			d.clean.add(value)
		}
	}
}

// secretsOf notes what is secret of a value of the configuration: a URL's password, and what is in a file.
func (d *doctor) secretsOf(value string) {
	for _, one := range strings.Fields(value) {
		if u, err := url.Parse(one); err == nil && u.User != nil {
			d.clean.add(u.User.String(), u.User.Username())
			if password, ok := u.User.Password(); ok {
				d.clean.add(password)
			}
		}
		if info, err := os.Stat(one); err == nil && info.Mode().IsRegular() && info.Size() <= 4096 {
			if b, err := os.ReadFile(one); err == nil {
				d.clean.add(string(b))
				d.clean.add(strings.Fields(string(b))...)
			}
		}
	}
}

// eachText calls f with each text in a value of a configuration.
func eachText(v any, f func(string)) {
	switch v := v.(type) {
	case string:
		f(v)
	case []any:
		for _, one := range v {
			eachText(one, f)
		}
	case map[string]any:
		for _, one := range v {
			eachText(one, f)
		}
	}
}
