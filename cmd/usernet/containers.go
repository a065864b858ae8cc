package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/ports"
	"github.com/usernet/usernet/network"
)

// errSkip is returned by the function of each for a container that is not to be printed and is no error.
var errSkip = errors.New("skip")

// each is a command that does the same for each container that it names, and prints the name as Docker does.
func each(use, short string, do func(c *cobra.Command, cl *api.Client, ref string) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			var errs []error
			for _, a := range args {
				switch err := do(c, cl, a); {
				case errors.Is(err, errSkip):
					continue
				case errors.Is(err, api.ErrNoDaemon):
					return errors.Join(append(errs, err)...) // once, whatever is left
				case err != nil:
					errs = append(errs, err)
					continue
				}
				fmt.Println(a)
			}
			return errors.Join(errs...)
		}}
}

func stopCommand() *cobra.Command {
	var o stopOptions
	c := each("stop CONTAINER...", "Stop containers", func(c *cobra.Command, cl *api.Client, ref string) error {
		return cl.ContainerStop(c.Context(), ref, o.signal, o.timeout(c.Flags()))
	})
	o.add(c.Flags())
	return c
}

func killCommand() *cobra.Command {
	var sig string
	c := each(
		"kill CONTAINER...",
		"Send a signal to containers",
		func(c *cobra.Command, cl *api.Client, ref string) error {
			return cl.ContainerKill(c.Context(), ref, sig)
		},
	)
	c.Flags().StringVarP(&sig, "signal", "s", "KILL", "signal to send")
	return c
}

func rmCommand() *cobra.Command {
	var force bool
	c := each("rm CONTAINER...", "Remove containers", func(c *cobra.Command, cl *api.Client, ref string) error {
		err := cl.ContainerRemove(c.Context(), ref, force)
		if force && errdefs.IsNotFound(err) { // it is as it was to be; docker says so too
			fmt.Fprintln(os.Stderr, "usernet:", err)
			return errSkip
		}
		return err
	})
	c.Flags().BoolVarP(
		&force,
		"force",
		"f",
		false,
		"kill a running container first, detach an attached one; no error where there is none",
	)
	return c
}

// psRow is a line of ps; its fields are Docker's.
type psRow struct {
	ID           string
	Names        string
	Image        string
	Command      string
	CreatedAt    string
	RunningFor   string
	Ports        string
	State        string
	Status       string
	Labels       string
	Networks     string
	Mounts       string
	Size         string
	LocalVolumes string

	labels map[string]string
}

// Label is the value of one label.
func (r psRow) Label(name string) string { return r.labels[name] }

var psTable = table{
	columns: "{{.ID}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
	header: headings{
		"ID":         "CONTAINER ID",
		"Names":      "NAMES",
		"Image":      "IMAGE",
		"Command":    "COMMAND",
		"CreatedAt":  "CREATED AT",
		"RunningFor": "CREATED",
		"Ports":      "PORTS",
		"State":      "STATE",
		"Status":     "STATUS",
		"Labels":     "LABELS",
		"Networks":   "NETWORKS",
	},
}

func psCommand() *cobra.Command {
	var all, quiet, noTrunc, latest bool
	var last int
	var format string
	var filter []string
	c := &cobra.Command{
		Use:   "ps",
		Short: "List containers",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			f, err := parseFilters(filter)
			if err != nil {
				return err
			}
			if latest {
				last = 1
			}
			list, err := cl.Containers(c.Context(), api.ContainerList{All: all, Limit: last, Filters: f})
			if err != nil {
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
	f.IntVarP(&last, "last", "n", -1, "show so many of the latest, ended ones too")
	countBetween(f, "last", math.MinInt32, math.MaxInt32, "negative: all that run")
	f.BoolVarP(&latest, "latest", "l", false, "show the latest, even where it ended")
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
	var bound []ports.Bound
	var exposed []network.PortProto
	for _, p := range k.Ports {
		if p.PublicPort == 0 {
			exposed = append(exposed, network.PortProto{Port: p.PrivatePort, Proto: network.Protocol(p.Type)})
			continue
		}
		bound = append(
			bound,
			ports.Bound{
				Host:  netip.AddrPortFrom(p.IP, p.PublicPort),
				Port:  p.PrivatePort,
				Proto: network.Protocol(p.Type),
			},
		)
	}
	created := time.Unix(k.Created, 0)
	return psRow{
		ID:           id,
		Names:        strings.Join(names, ","),
		Image:        k.Image,
		Command:      strconv.Quote(cmd),
		CreatedAt:    created.Format("2006-01-02 15:04:05 -0700 MST"),
		RunningFor:   units.HumanDuration(time.Since(created)) + " ago",
		Ports:        network.FormatPorts(bound, exposed),
		State:        string(k.State),
		Status:       k.Status,
		Labels:       strings.Join(labels, ","),
		Networks:     strings.Join(networks, ","),
		Size:         "0B",
		LocalVolumes: "0",
		labels:       k.Labels,
	}
}

// parseFilters reads values of --filter.
func parseFilters(values []string) (api.Filters, error) {
	f := api.Filters{}
	for _, s := range values {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("invalid filter %q: give KEY=VALUE", s)
		}
		k = strings.ToLower(strings.TrimSpace(k))
		f[k] = append(f[k], strings.TrimSpace(v))
	}
	return f, nil
}

func inspectCommand() *cobra.Command {
	var format, kind string
	c := &cobra.Command{
		Use:   "inspect NAME...",
		Short: "Show containers or networks in full",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return inspect(
				args,
				format,
				func(cl *api.Client, name string) (any, error) { return find(c.Context(), cl, name, kind) },
			)
		}}
	c.Flags().StringVarP(&format, "format", "f", "", "json or TEMPLATE")
	c.Flags().StringVar(&kind, "type", "", "container or network")
	return c
}

// inspect prints what get finds under each name, and then what it did not find.
func inspect(names []string, format string, get func(cl *api.Client, name string) (any, error)) error {
	cl, err := client()
	if err != nil {
		return err
	}
	list := []any{}
	var errs []error
	for _, name := range names {
		v, err := get(cl, name)
		if err != nil {
			errs = append(errs, err)
		}
		if v != nil {
			list = append(list, v)
		}
	}
	return errors.Join(append(errs, printObjects(format, list))...)
}

// find is the container or the network called ref, in Docker's form; kind "" means either.
func find(ctx context.Context, cl *api.Client, ref, kind string) (any, error) {
	switch kind {
	case "", "container", "network":
	default:
		return nil, fmt.Errorf("%q is not a valid value for --type: give container or network", kind)
	}
	if kind != "network" {
		k, err := cl.ContainerInspect(ctx, ref)
		if err == nil {
			var text json.RawMessage
			if err := cl.Do(ctx, "GET", "/v1.51/containers/"+k.ID+"/json", nil, &text); err != nil {
				return nil, err
			}
			old, err := plain(text)
			return withOldForm{k, old}, err
		}
		if kind == "container" || !errdefs.IsNotFound(err) {
			return nil, err
		}
	}
	n, err := cl.Network(ctx, ref)
	if kind == "" && errdefs.IsNotFound(err) {
		return nil, noSuchObject(ref)
	}
	return n, err
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "    ")
	return e.Encode(v)
}

func renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rename CONTAINER NEW_NAME",
		Short: "Give a container another name",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			return cl.ContainerRename(c.Context(), args[0], args[1])
		}}
}

func waitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wait CONTAINER...",
		Short: "Wait until containers end, and print their exit statuses",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			var errs []error
			for _, a := range args {
				code, err := cl.ContainerWait(c.Context(), a)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Println(code)
			}
			return errors.Join(errs...)
		}}
}
