// Command usernet gives containers networks without privileges. See README.md, or `usernet help`.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/bypass"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/procname"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/kv/stores"
	"github.com/usernet/usernet/sandbox"
)

// version is set by the linker.
var version = "dev"

// exitCode ends the program with a status and no message: what a container ended with.
type exitCode int

func (e exitCode) Error() string { return "exit status " + strconv.Itoa(int(e)) }

func main() {
	sandbox.Program = sandboxProgram
	stores.EtcdProgram = etcdProgram
	sandbox.Main(bypass.Role)
	procname.Set(processName(os.Args))
	place()
	os.Exit(run())
}

// processName is what ps calls a process with these arguments, which may have been executed as /proc/self/exe.
func processName(args []string) string {
	if len(args) == 0 {
		return "usernet"
	}
	name := filepath.Base(args[0])
	if len(args) > 1 && (args[1] == monitorWord || args[1] == starterWord) {
		name += "-" + args[1]
	}
	return name
}

func run() int {
	word := ""
	if len(os.Args) > 1 {
		word = os.Args[1]
	}
	err := commandTree(word).Execute()
	var code exitCode
	var start *sandbox.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "usernet:", err)
	fmt.Fprintln(os.Stderr, seeTopic+string(topicOf(err)))
	switch {
	case errors.As(err, &start):
		return start.Code
	case errors.As(err, new(runError)):
		return 125
	case errors.Is(err, network.ErrLocked), errors.Is(err, errInUse):
		return exitInUse
	}
	return 1
}

// runError marks failures of usernet itself in commands whose other statuses are the container's.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

var host string // --host

// rootCommand is the whole tree of commands.
func rootCommand() *cobra.Command { return commandTree("") }

// commandTree is the tree with all commands, or with the one that word names only, if it names one: to make all flags
// of all commands takes a tenth of what `usernet version` takes.
func commandTree(word string) *cobra.Command {
	root := &cobra.Command{
		Use:           "usernet",
		Short:         "Rootless container networking",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVarP(
		&host,
		"host",
		"H",
		os.Getenv(hostVariable),
		"the daemon's socket (unix:///path)",
	)
	all := makers()
	if one := all[word]; one != nil {
		root.AddCommand(one())
		root.CompletionOptions.DisableDefaultCmd = true // `usernet completion` is a word of its own
	} else {
		for _, each := range all {
			root.AddCommand(each())
		}
		addDockerOnly(root)
	}
	root.PersistentPreRun = func(c *cobra.Command, _ []string) {
		if !c.Hidden && c.GroupID != groupRuntimes { // engines take what is on standard error for an error
			warnHostVariable(os.Stderr)
		}
	}
	// Of two changes to a word, as from pull to kill, nobody could say that they are slips.
	root.SuggestionsMinimumDistance = 1
	root.SetFlagErrorFunc(flagError)
	addPages(root)
	return root
}

// client speaks to the daemon that --host names, or the default one.
func client() (*api.Client, error) {
	if host != "" {
		path, ok := trimScheme(host)
		if !ok {
			return nil, fmt.Errorf("host %q: only unix sockets are possible: give unix:///path", host)
		}
		return speaking(api.NewClient(path)), nil
	}
	dir, err := runtimeDir()
	if err != nil {
		return nil, err
	}
	return speaking(api.NewClient(socketOf(filepath.Join(dir, "usernet.sock")))), nil
}

// speaking has a client tell the user why a command waits, where it is the daemon's fault.
func speaking(c *api.Client) *api.Client {
	c.OnSilence = func(after time.Duration) {
		fmt.Fprintf(os.Stderr, "usernet: the daemon at %s has not answered for %v; waiting. Ctrl-C ends this; "+
			"`usernet doctor` looks what is wrong\n%s%s\n", c.Socket, after, seeTopic, errdefs.TopicDaemonHangs)
	}
	return c
}

func trimScheme(s string) (string, bool) {
	if len(s) > 7 && s[:7] == "unix://" {
		return s[7:], true
	}
	return s, filepath.IsAbs(s)
}

// runtimeDir is where the socket lives: a directory that only this user can write to.
func runtimeDir() (string, error) {
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "usernet"), nil
	}
	uid := strconv.Itoa(os.Getuid())
	if d := filepath.Join("/run/user", uid); private(d) {
		return filepath.Join(d, "usernet"), nil
	}
	d := filepath.Join(os.TempDir(), "usernet-"+uid)
	if err := os.MkdirAll(d, 0o700); err != nil {
		return "", err
	}
	if !private(d) {
		return "", fmt.Errorf("%s is not private to this user; set XDG_RUNTIME_DIR to a directory that is", d)
	}
	return d, nil
}

// private says whether dir is a directory that only this user can read and write.
func private(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid() && info.Mode().Perm()&0o077 == 0
}

// stateDir is where the daemon keeps its state unless it is told otherwise.
func stateDir() (string, error) {
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "usernet"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil { // HOME is not set, as under some service managers
		u, lookup := user.LookupId(strconv.Itoa(os.Getuid()))
		if lookup != nil || !filepath.IsAbs(u.HomeDir) {
			return "", errors.New(
				"no directory for the state: neither HOME is set nor has this user a home in /etc/passwd. " +
					"Set XDG_STATE_HOME to a directory that is private to this user",
			)
		}
		home = u.HomeDir
	}
	return filepath.Join(home, ".local", "state", "usernet"), nil
}
