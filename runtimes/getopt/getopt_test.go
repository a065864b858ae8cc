package getopt

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// options has some of slirp4netns's, in its order, and one of usernet's own.
func options() *pflag.FlagSet {
	f := pflag.NewFlagSet("x", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.SortFlags = false
	f.BoolP("configure", "c", false, "")
	f.StringP("exit-fd", "e", "", "")
	f.StringP("mtu", "m", "", "")
	f.BoolP("enable-ipv6", "6", false, "")
	f.Bool("enable-sandbox", false, "")
	f.Bool("enable-seccomp", false, "")
	f.String("outbound-addr", "", "")
	f.String("outbound-addr6", "", "")
	f.String("macaddress", "", "")
	f.String("userns-path", "", "")
	f.String("usernet-name", "", "")
	return f
}

func TestBeginningsOfOptions(t *testing.T) {
	for given, want := range map[string]string{
		"--conf --mt 1500 7 tap0": "--configure --mtu 1500 7 tap0",
		"--mt=1500":               "--mtu=1500",
		"--outbound-addr lo":      "--outbound-addr lo", // in full it is no beginning of the next
		"--user /p":               "--userns-path /p",   // usernet's own make nothing ambiguous
		"--usernet-n x":           "--usernet-n x",      // nor are they abbreviated
		"--nosuch":                "--nosuch",           // pflag's to say
		"7 --conf":                "7 --configure",      // options are taken from anywhere
		"--conf -- --conf":        "--configure -- --conf",
		"--mt --conf":             "--mtu --conf", // a value, whatever it looks like
		"-e --conf --conf":        "-e --conf --configure",
		"-ce --conf --conf":       "-ce --conf --configure",
		"-ce3 --conf":             "-ce3 --configure",
		"-Z --conf":               "-Z --configure",
		"- --conf":                "- --configure",
		"--mtu":                   "--mtu",
	} {
		got, err := Expand(options(), strings.Fields(given), true)
		if err != nil || !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q, %v, want %s", given, got, err, want)
		}
	}
	if got, err := Expand(options(), []string{"--conf", "cmd", "--conf"}, false); err != nil ||
		!slices.Equal(got, []string{"--configure", "cmd", "--conf"}) {
		t.Errorf("a command's own options: %q, %v", got, err)
	}
}

// TestWordsOfGetopt has texts that Debian's slirp4netns 1.2.0 writes, which is built with glibc.
func TestWordsOfGetopt(t *testing.T) {
	for given, want := range map[string]string{
		"--m 1500": "option '--m' is ambiguous; possibilities: '--mtu' '--macaddress'",
		"--m=1500": "option '--m=1500' is ambiguous; possibilities: '--mtu' '--macaddress'",
		"--enable": "option '--enable' is ambiguous; possibilities: '--enable-ipv6' '--enable-sandbox' " +
			"'--enable-seccomp'",
		"--configur=3":   "option '--configure' doesn't allow an argument",
		"--xyz":          "unrecognized option '--xyz'",
		"--mtu":          "option '--mtu' requires an argument",
		"--mt":           "option '--mtu' requires an argument",
		"-Z":             "invalid option -- 'Z'",
		"-cZ":            "invalid option -- 'Z'",
		"-e":             "option requires an argument -- 'e'",
		"-ce":            "option requires an argument -- 'e'",
		"--usernet-n=me": "unrecognized option '--usernet-n'",
	} {
		f := options()
		args, err := Expand(f, strings.Fields(given), true)
		if err == nil {
			err = Error(f.Parse(args))
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", given, err, want)
		}
	}
}
