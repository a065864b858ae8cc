package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// everyFlag calls f for each flag of each command that is shown or not, with the command's words.
func everyFlag(c *cobra.Command, f func(path string, flag *pflag.Flag)) {
	c.LocalFlags().VisitAll(func(flag *pflag.Flag) { f(strings.TrimPrefix(c.CommandPath(), "usernet "), flag) })
	for _, sub := range c.Commands() {
		everyFlag(sub, f)
	}
}

// TestNumbersHaveBounds has no flag with a number, a duration or a size take one that makes no sense, and each say what
// it takes.
func TestNumbersHaveBounds(t *testing.T) {
	absurd := map[string][]string{
		"duration": {"-1s", "-1ns", "2562047h", "1", "x", ""},
		"int":      {"-2", "99999999999", "9223372036854775807", "99999999999999999999", "1.5", "x", ""},
		"int64":    {"-2", "99999999999999999999", "1.5", "x", ""},
		"uint32":   {"-1", "0", "4294967296", "x", ""},
		"bytes":    {"-2", "-5m", "1e30g", "99999999999999999999p", "x", ""},
	}
	texts := []string{"bool", "boolfunc", "func", "string", "stringArray", "stringSlice"}
	docker := []string{"number"} // --cpus: a limit that depends on the machine, in Docker's words
	negative := map[string]string{"time": "-2", "stop-timeout": "-2", "gw-priority": "-2", "last": "-2"}
	everyFlag(rootCommand(), func(path string, flag *pflag.Flag) {
		kind := flag.Value.Type()
		if slices.Contains(texts, kind) || slices.Contains(docker, kind) {
			return
		}
		if absurd[kind] == nil {
			t.Errorf("%s --%s: no test of values of type %s", path, flag.Name, kind)
		}
		before := flag.Value.String()
		for _, text := range absurd[kind] {
			err := flag.Value.Set(text)
			if text != "" && text == negative[flag.Name] {
				if err != nil {
					t.Errorf("%s --%s %s: %v, and it has a meaning", path, flag.Name, text, err)
				}
				before = flag.Value.String()
				continue
			}
			if err == nil || !strings.Contains(err.Error(), "give a ") {
				t.Errorf("%s --%s %q: %v does not say what is accepted", path, flag.Name, text, err)
			}
			if now := flag.Value.String(); now != before {
				t.Errorf("%s --%s %q is refused and set: %s", path, flag.Name, text, now)
			}
		}
	})
}

// TestDefaultsAreWithinBounds has each default accepted, except where it stands for a flag that was not given.
func TestDefaultsAreWithinBounds(t *testing.T) {
	unset := []string{"attach --pid", "serve --bgp-asn"}
	everyFlag(rootCommand(), func(path string, flag *pflag.Flag) {
		b, ok := flag.Value.(bounded)
		if !ok || flag.Value.Type() == "bytes" || slices.Contains(unset, path+" --"+flag.Name) {
			return
		}
		if flag.DefValue != "" && !b.accepts(flag.DefValue) {
			t.Errorf("%s --%s: its default %s is refused: give %s", path, flag.Name, flag.DefValue, b.what)
		}
	})
}

func TestWhatIsAcceptedIsSaid(t *testing.T) {
	for args, want := range map[string]string{
		"trace --timeout -1s":         "give a duration from 1ms to 1m (0: 5s)",
		"top --interval 1ms":          "give a duration from 100ms to 24h",
		"capture --duration -1h":      "give a duration from 1ms to 8760h (0: no end)",
		"capture --max-size -1m":      "give a number of bytes from 0 to 1EiB, such as 512m or 1.5GiB (0: no end)",
		"serve --limit-tcp -1":        "give a whole number from 0 to 2147483647 (0: no limit)",
		"serve --peer-timeout 24h":    "give a duration from 1s to 18h (0: hours, as the kernel has it)",
		"serve --bgp-asn 0":           "give a whole number from 1 to 4294967295",
		"network connect --vlan 5000": "give a whole number from 0 to 4094 (0: none)",
	} {
		root := rootCommand()
		root.SetArgs(strings.Fields(args))
		err := root.Execute()
		if err == nil || !strings.Contains(err.Error(), "flag: "+want+"\n") {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}
