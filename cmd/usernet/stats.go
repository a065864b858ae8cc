package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
)

var statsTable = table{
	header: headings{
		"ID": "CONTAINER ID", "Container": "CONTAINER", "Name": "NAME", "CPUPerc": "CPU %",
		"MemUsage": "MEM USAGE / LIMIT",
		"MemPerc":  "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
	},
	columns: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
}

// statsRow is a container in the table, with the fields that docker stats has.
type statsRow struct{ ID, Container, Name, CPUPerc, MemUsage, MemPerc, NetIO, BlockIO, PIDs string }

// statsOptions are the flags of stats.
type statsOptions struct {
	all, noStream, noTrunc bool
	format                 string
	every                  time.Duration
}

func statsCommand() *cobra.Command {
	var o statsOptions
	c := &cobra.Command{
		Use:   "stats [CONTAINER...]",
		Short: "Show the processor time, memory and traffic of containers, again and again",
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case o.all && len(args) > 0:
				return errors.New("--all and names exclude each other")
			}
			cl, err := client()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return showStats(ctx, cl, args, o)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "containers that have ended too")
	f.BoolVar(&o.noStream, "no-stream", false, "only once")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "whole ids")
	f.StringVar(&o.format, "format", "", "json, or a Go template of a line, such as '{{.Name}}: {{.CPUPerc}}'")
	f.DurationVar(&o.every, "interval", time.Second, "how often, and how long is measured")
	timeBetween(f, "interval", minInterval, maxInterval, "")
	return c
}

// showStats prints a table for each interval, the first after one.
func showStats(ctx context.Context, cl *api.Client, names []string, o statsOptions) error {
	last := map[string]container.StatsResponse{}
	for first := true; ; first = false {
		list, err := statsOf(ctx, cl, names, o.all)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if !first {
			if err := printStats(list, last, o); err != nil || o.noStream {
				return err
			}
		}
		clear(last)
		for _, s := range list {
			last[s.ID] = s
		}
		select {
		case <-time.After(o.every):
		case <-ctx.Done():
			return nil
		}
	}
}

// statsAtOnce bounds how many containers are measured at a time: the daemon reads the processes of each.
const statsAtOnce = 8

// statsOf measures containers, by name; those that are named, or all.
func statsOf(ctx context.Context, cl *api.Client, names []string, ended bool) ([]container.StatsResponse, error) {
	named := len(names) > 0
	if !named {
		list, err := cl.Containers(ctx, api.ContainerList{All: ended})
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			names = append(names, c.ID)
		}
	}
	var (
		wg   sync.WaitGroup
		turn = make(chan struct{}, statsAtOnce)
		all  = make([]container.StatsResponse, len(names))
		errs = make([]error, len(names))
	)
	for i, name := range names {
		turn <- struct{}{}
		wg.Go(func() {
			all[i], errs[i] = cl.ContainerStats(ctx, name)
			<-turn
		})
	}
	wg.Wait()
	var list []container.StatsResponse
	for i, err := range errs {
		switch {
		case err == nil:
			list = append(list, all[i])
		case named || !errors.Is(err, errdefs.ErrNotFound): // else it has gone since
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b container.StatsResponse) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func printStats(list []container.StatsResponse, last map[string]container.StatsResponse, o statsOptions) error {
	rows := []any{}
	for _, s := range list {
		rows = append(rows, newStatsRow(s, last[s.ID], o.noTrunc))
	}
	if !o.noStream && o.format != "json" && term.IsTerminal(int(os.Stdout.Fd())) {
		fmt.Print("\x1b[H\x1b[2J") // the cursor to the corner, the screen empty (ECMA-48)
	}
	return statsTable.print(o.format, rows)
}

// newStatsRow is a container's row, with what it used since before.
func newStatsRow(now, before container.StatsResponse, noTrunc bool) statsRow {
	name := now.Name
	if len(name) > 0 && name[0] == '/' {
		name = name[1:]
	}
	id := now.ID
	if !noTrunc {
		id = id[:min(12, len(id))]
	}
	row := statsRow{ID: id, Container: name, Name: name, CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--", NetIO: "--",
		BlockIO: "--", PIDs: "--"}
	if now.Read.IsZero() {
		return row // it does not run
	}
	if !before.Read.IsZero() {
		row.CPUPerc = fmt.Sprintf("%.2f%%", cpuPercent(now.CPUStats, before.CPUStats))
	}
	m := now.MemoryStats
	row.MemUsage = units.BytesSize(float64(m.Usage)) + " / " + units.BytesSize(float64(m.Limit))
	if m.Limit > 0 {
		row.MemPerc = fmt.Sprintf("%.2f%%", 100*float64(m.Usage)/float64(m.Limit))
	}
	var in, out uint64
	for _, n := range now.Networks {
		in, out = in+n.RxBytes, out+n.TxBytes
	}
	row.NetIO = units.HumanSizeWithPrecision(float64(in), 3) + " / " + units.HumanSizeWithPrecision(float64(out), 3)
	row.PIDs = fmt.Sprint(now.PidsStats.Current)
	return row
}

// cpuPercent is how much of one processor was used, as docker has it. Where processes have ended meanwhile it is none.
func cpuPercent(now, before container.CPUStats) float64 {
	used := float64(now.CPUUsage.TotalUsage) - float64(before.CPUUsage.TotalUsage)
	whole := float64(now.SystemUsage) - float64(before.SystemUsage)
	if used <= 0 || whole <= 0 {
		return 0
	}
	return 100 * used / whole * float64(now.OnlineCPUs)
}
