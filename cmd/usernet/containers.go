package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// each is a command that does the same for each container that it names, and prints the name as Docker does.
func each(use, short string, do func(c *cobra.Command, cl *api.Client, ref string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		var errs []error
		for _, a := range args {
			if err := do(c, cl, a); err != nil {
				errs = append(errs, err)
				continue
			}
			fmt.Println(a)
		}
		return errors.Join(errs...)
	}}
}

func stopCommand() *cobra.Command {
	var wait int
	var sig string
	c := each("stop CONTAINER...", "Stop containers", func(c *cobra.Command, cl *api.Client, ref string) error {
		return cl.Do(c.Context(), "POST", "/usernet/containers/"+ref+"/stop?t="+strconv.Itoa(wait)+"&signal="+url.QueryEscape(sig), nil, nil)
	})
	c.Flags().IntVarP(&wait, "time", "t", 10, "seconds to wait before killing")
	c.Flags().StringVarP(&sig, "signal", "s", "", "signal to send (TERM)")
	return c
}

func killCommand() *cobra.Command {
	var sig string
	c := each("kill CONTAINER...", "Send a signal to containers", func(c *cobra.Command, cl *api.Client, ref string) error {
		return cl.Do(c.Context(), "POST", "/usernet/containers/"+ref+"/kill?signal="+url.QueryEscape(sig), nil, nil)
	})
	c.Flags().StringVarP(&sig, "signal", "s", "KILL", "signal to send")
	return c
}

func rmCommand() *cobra.Command {
	var force bool
	c := each("rm CONTAINER...", "Remove containers", func(c *cobra.Command, cl *api.Client, ref string) error {
		q := ""
		if force {
			q = "?force=1"
		}
		return cl.Do(c.Context(), "DELETE", "/usernet/containers/"+ref+q, nil, nil)
	})
	c.Flags().BoolVarP(&force, "force", "f", false, "kill a running container first")
	return c
}

func psCommand() *cobra.Command {
	var all, quiet, noTrunc bool
	c := &cobra.Command{Use: "ps", Short: "List containers", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		var list []*network.Container
		if err := cl.Do(c.Context(), "GET", "/usernet/containers", nil, &list); err != nil {
			return err
		}
		w := tabwriter.NewWriter(os.Stdout, 10, 1, 3, ' ', 0)
		if !quiet {
			fmt.Fprintln(w, "CONTAINER ID\tCOMMAND\tCREATED\tSTATUS\tPORTS\tNAMES")
		}
		for _, k := range list {
			if !all && k.Status != network.Running {
				continue
			}
			id, cmd := k.ID, strconv.Quote(strings.Join(k.Command, " "))
			if !noTrunc {
				id = id[:12]
				if r := []rune(cmd); len(r) > 20 {
					cmd = string(r[:19]) + "…"
				}
			}
			if quiet {
				fmt.Fprintln(w, id)
				continue
			}
			ports, err := portsColumn(c, cl, k)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%s\t%s\t%s ago\t%s\t%s\t%s\n", id, cmd, units.HumanDuration(time.Since(k.Created)), status(k), ports, k.Name)
		}
		return w.Flush()
	}}
	c.Flags().BoolVarP(&all, "all", "a", false, "show ended containers too")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show ids only")
	c.Flags().BoolVar(&noTrunc, "no-trunc", false, "do not cut columns short")
	return c
}

func portsColumn(c *cobra.Command, cl *api.Client, k *network.Container) (string, error) {
	var bound []api.Published
	if err := cl.Do(c.Context(), "GET", "/usernet/containers/"+k.ID+"/ports", nil, &bound); err != nil {
		return "", err
	}
	var list []network.BoundPort
	for _, b := range bound {
		list = append(list, network.BoundPort{Host: b.Host, Port: b.Port, Proto: b.Proto})
	}
	if k.Status != network.Running {
		return "", nil
	}
	return network.FormatPorts(list, k.Exposed), nil
}

func status(k *network.Container) string {
	switch k.Status {
	case network.Running:
		return "Up " + units.HumanDuration(time.Since(k.Started))
	case network.Exited:
		return fmt.Sprintf("Exited (%d) %s ago", k.ExitCode, units.HumanDuration(time.Since(k.Finished)))
	}
	return "Created"
}

func inspectCommand() *cobra.Command {
	return &cobra.Command{Use: "inspect CONTAINER...", Short: "Show containers in full", Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		var list []json.RawMessage
		for _, a := range args {
			var v json.RawMessage
			if err := cl.Do(c.Context(), "GET", "/usernet/containers/"+a, nil, &v); err != nil {
				return err
			}
			list = append(list, v)
		}
		return printJSON(list)
	}}
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "    ")
	return e.Encode(v)
}

func execCommand() *cobra.Command {
	var env []string
	var dir string
	var interactive, tty bool
	c := &cobra.Command{Use: "exec [flags] CONTAINER COMMAND [ARG...]", Short: "Run one more command in a running container", Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return runError{err}
			}
			var k network.Container
			if err := cl.Do(c.Context(), "GET", "/usernet/containers/"+args[0], nil, &k); err != nil {
				return runError{err}
			}
			if k.Status != network.Running || k.Pid == 0 {
				return runError{fmt.Errorf("container %s is not running", k.Name)}
			}
			o := runOptions{rootfs: k.Rootfs, tty: tty, env: append(k.Env, env...)}
			if dir == "" {
				dir = k.WorkingDir
			}
			spec := sandbox.Spec{Command: args[1:], Env: environment(o), WorkingDir: dir, TTY: tty, Stdout: os.Stdout, Stderr: os.Stderr}
			if interactive || tty {
				spec.Stdin = os.Stdin
			}
			p, err := sandbox.Exec(c.Context(), sandbox.Target{Pid: k.Pid}, spec)
			if err != nil {
				return runError{err}
			}
			defer p.ForwardSignals()()
			code, err := p.Wait()
			if err != nil {
				return runError{err}
			}
			if code != 0 {
				return exitCode(code)
			}
			return nil
		}}
	c.Flags().SetInterspersed(false)
	c.Flags().StringArrayVarP(&env, "env", "e", nil, "environment variable: NAME[=VALUE]")
	c.Flags().StringVarP(&dir, "workdir", "w", "", "working directory")
	c.Flags().BoolVarP(&interactive, "interactive", "i", false, "keep standard input open")
	c.Flags().BoolVarP(&tty, "tty", "t", false, "give the command a terminal")
	return c
}

func logsCommand() *cobra.Command {
	var follow bool
	c := &cobra.Command{Use: "logs [flags] CONTAINER", Short: "Show a detached container's output", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		var path string
		if err := cl.Do(c.Context(), "GET", "/usernet/containers/"+args[0]+"/log", nil, &path); err != nil {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // nothing was written yet
		}
		if err != nil {
			return err
		}
		defer f.Close()
		r := bufio.NewReader(f)
		for {
			b, err := r.ReadBytes('\n')
			if err == nil {
				var l logLine
				if json.Unmarshal(b, &l) == nil {
					out := os.Stdout
					if l.Stream == "stderr" {
						out = os.Stderr
					}
					fmt.Fprint(out, l.Log)
				}
				continue
			}
			if !errors.Is(err, io.EOF) || !follow {
				return nil
			}
			var k network.Container
			if err := cl.Do(c.Context(), "GET", "/usernet/containers/"+args[0], nil, &k); err != nil || k.Status != network.Running {
				follow = false
			}
			time.Sleep(100 * time.Millisecond)
		}
	}}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the container ends")
	return c
}

func portCommand() *cobra.Command {
	return &cobra.Command{Use: "port CONTAINER", Short: "List a container's published ports", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		var bound []api.Published
		if err := cl.Do(c.Context(), "GET", "/usernet/containers/"+args[0]+"/ports", nil, &bound); err != nil {
			return err
		}
		for _, b := range bound {
			fmt.Printf("%d/%s -> %s\n", b.Port, b.Proto, b.Host)
		}
		return nil
	}}
}
