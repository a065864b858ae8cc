package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	dockernet "github.com/moby/moby/api/types/network"
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

// psRow is a line of ps; its fields are Docker's.
type psRow struct {
	ID, Names, Image, Command, CreatedAt, RunningFor, Ports, State, Status, Labels, Networks, Mounts, Size, LocalVolumes string
}

var psTable = table{
	columns: "{{.ID}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
	header: map[string]string{"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT",
		"RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Labels": "LABELS", "Networks": "NETWORKS"},
}

func psCommand() *cobra.Command {
	var all, quiet, noTrunc bool
	var format string
	var filter []string
	c := &cobra.Command{Use: "ps", Short: "List containers", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		q, err := filterQuery(filter)
		if err != nil {
			return err
		}
		if all {
			q.Set("all", "1")
		}
		var list []container.Summary
		if err := cl.Do(c.Context(), "GET", "/containers/json?"+q.Encode(), nil, &list); err != nil {
			return err
		}
		var rows []any
		for _, k := range list {
			rows = append(rows, newPsRow(k, noTrunc))
		}
		if quiet {
			format = "{{.ID}}"
		}
		return psTable.print(format, rows)
	}}
	f := c.Flags()
	f.BoolVarP(&all, "all", "a", false, "show ended containers too")
	f.BoolVarP(&quiet, "quiet", "q", false, "show ids only")
	f.BoolVar(&noTrunc, "no-trunc", false, "do not cut columns short")
	f.StringVar(&format, "format", "", "json, table, table TEMPLATE or TEMPLATE")
	f.StringArrayVarP(&filter, "filter", "f", nil, "show those that match: KEY=VALUE")
	return c
}

func newPsRow(k container.Summary, noTrunc bool) psRow {
	id, cmd := k.ID, k.Command
	if !noTrunc {
		id = id[:12]
		if r := []rune(cmd); len(r) > 20 {
			cmd = string(r[:19]) + "…"
		}
	}
	var names, networks, labels []string
	for _, n := range k.Names {
		names = append(names, strings.TrimPrefix(n, "/"))
	}
	for n := range k.NetworkSettings.Networks {
		networks = append(networks, n)
	}
	for key, v := range k.Labels {
		labels = append(labels, key+"="+v)
	}
	slices.Sort(networks)
	slices.Sort(labels)
	var bound []network.BoundPort
	var exposed []network.PortProto
	for _, p := range k.Ports {
		if p.PublicPort == 0 {
			exposed = append(exposed, network.PortProto{Port: p.PrivatePort, Proto: network.Protocol(p.Type)})
			continue
		}
		bound = append(bound, network.BoundPort{Host: netip.AddrPortFrom(p.IP, p.PublicPort), Port: p.PrivatePort, Proto: network.Protocol(p.Type)})
	}
	created := time.Unix(k.Created, 0)
	return psRow{
		ID: id, Names: strings.Join(names, ","), Image: k.Image, Command: strconv.Quote(cmd), CreatedAt: created.Format("2006-01-02 15:04:05 -0700 MST"),
		RunningFor: units.HumanDuration(time.Since(created)) + " ago", Ports: network.FormatPorts(bound, exposed), State: string(k.State),
		Status: k.Status, Labels: strings.Join(labels, ","), Networks: strings.Join(networks, ","), Size: "0B", LocalVolumes: "0",
	}
}

// filterQuery puts --filter values into the form of the API.
func filterQuery(values []string) (url.Values, error) {
	q := url.Values{}
	if len(values) == 0 {
		return q, nil
	}
	m := map[string]map[string]bool{}
	for _, v := range values {
		k, v, ok := strings.Cut(v, "=")
		if !ok {
			return nil, fmt.Errorf("invalid filter %q: give KEY=VALUE", k)
		}
		if m[k] == nil {
			m[k] = map[string]bool{}
		}
		m[k][v] = true
	}
	b, err := json.Marshal(m)
	q.Set("filters", string(b))
	return q, err
}

func inspectCommand() *cobra.Command {
	var format, kind string
	c := &cobra.Command{Use: "inspect NAME...", Short: "Show containers or networks in full", Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		list := []any{}
		var errs []error
		for _, a := range args {
			var k container.InspectResponse
			var n dockernet.Inspect
			err := cl.Do(c.Context(), "GET", "/containers/"+a+"/json", nil, &k)
			if err == nil && kind != "network" {
				list = append(list, k)
			} else if kind != "container" && cl.Do(c.Context(), "GET", "/networks/"+a, nil, &n) == nil {
				list = append(list, n)
			} else {
				errs = append(errs, fmt.Errorf("no such object: %s", a))
			}
		}
		return errors.Join(append(errs, printObjects(format, list))...)
	}}
	c.Flags().StringVarP(&format, "format", "f", "", "json or TEMPLATE")
	c.Flags().StringVar(&kind, "type", "", "container or network")
	return c
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
