package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/joblog"
	"github.com/usernet/usernet/network"
)

// logPoll is how often a followed log is looked at again.
const logPoll = 100 * time.Millisecond

type logsOptions struct {
	follow, timestamps  bool
	tail, since, until  string
	sinceTime, endsTime time.Time
}

func logsCommand() *cobra.Command {
	var o logsOptions
	c := &cobra.Command{
		Use:   "logs [flags] CONTAINER",
		Short: "Show a detached container's output",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			if o.sinceTime, err = api.ParseTime(o.since); err != nil {
				return err
			}
			if o.endsTime, err = api.ParseTime(o.until); err != nil {
				return err
			}
			k, err := cl.Container(c.Context(), args[0])
			if err != nil {
				return err
			}
			path, err := cl.ContainerLog(c.Context(), k.ID)
			if err != nil {
				return err
			}
			return o.show(c.Context(), cl, k.ID, path)
		}}
	f := c.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on until the container ends")
	f.BoolVarP(&o.timestamps, "timestamps", "t", false, "put the time before each line")
	f.StringVarP(&o.tail, "tail", "n", "all", "number of lines to show from the end")
	f.StringVar(&o.since, "since", "", "show what was written since then: a date, or how long ago, such as 42m")
	f.StringVar(&o.until, "until", "", "show what was written before then")
	return c
}

// show prints the older file, which is there where the log was turned over, and the current one, and follows it.
func (o *logsOptions) show(ctx context.Context, cl *api.Client, id, path string) error {
	// Whether it runs is asked before the log is read: what was written before the answer is then in the log.
	running := o.follow
	if running {
		var err error
		if running, err = o.running(ctx, cl, id); err != nil {
			return err
		}
	}
	tail, err := joblog.ParseTail(o.tail)
	if err != nil {
		return err
	}
	log, err := joblog.Open(path, tail)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := log.Each(o.print); err != nil {
		return err
	}
	for running {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(logPoll):
		}
		var gone error
		running, gone = o.running(ctx, cl, id)
		if err := log.Each(o.print); err != nil {
			return err
		}
		if gone != nil {
			return gone
		}
	}
	return nil
}

// running says whether the container runs. A daemon that took the place of another is asked in its place; where none
// answers, nobody knows, and that is an error.
func (o *logsOptions) running(ctx context.Context, cl *api.Client, id string) (bool, error) {
	k, err := cl.Container(ctx, id)
	if errors.Is(err, api.ErrDaemonEnded) && cl.Ping(ctx) == nil {
		k, err = cl.Container(ctx, id)
	}
	switch {
	case err == nil:
		return k.Status == network.Running, nil
	case errdefs.IsNotFound(err):
		return false, nil // it was removed at its end
	}
	return false, fmt.Errorf("the log is followed no further: %w", err)
}

// logTime is RFC 3339 with all nine digits, so that columns stand under each other.
const logTime = "2006-01-02T15:04:05.000000000Z07:00"

func (o *logsOptions) print(l joblog.Line) error {
	if l.Time.Before(o.sinceTime) || !o.endsTime.IsZero() && l.Time.After(o.endsTime) {
		return nil
	}
	var out io.Writer = os.Stdout
	if l.Stream == "stderr" {
		out = os.Stderr
	}
	if o.timestamps {
		if _, err := fmt.Fprint(out, l.Time.UTC().Format(logTime), " "); err != nil {
			return err
		}
	}
	_, err := fmt.Fprint(out, l.Log)
	return err
}
