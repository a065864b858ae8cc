package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/observe/capture"
)

// captureOptions are the flags of capture.
type captureOptions struct {
	all, list, quiet    bool
	path                string
	count               int64
	snaplen             int
	duration            time.Duration
	maxSize, rotateSize int64
	rotateTime          time.Duration
	files               int
}

func captureCommand() *cobra.Command {
	var o captureOptions
	c := &cobra.Command{
		Use:   "capture [OPTION]... CONTAINER|NETWORK|--all [FILTER]...",
		Short: "Record the packets of containers, for Wireshark",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			if o.list {
				return listCaptures(c.Context(), cl)
			}
			if err := o.check(); err != nil {
				return err
			}
			q, err := o.request(c.Context(), cl, args)
			if err != nil {
				return err
			}
			return record(c.Context(), cl, q, o.output(), o.duration, !o.quiet)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "all endpoints, also of containers and networks that come later")
	f.StringVarP(&o.path, "write", "w", "",
		"`FILE` that is written; -: standard output, which is meant where it is no terminal")
	f.Int64VarP(&o.count, "count", "c", 0, "end after so many packets")
	countBetween(f, "count", 0, math.MaxInt64, "0: no end")
	f.IntVar(&o.snaplen, "snaplen", 0, "keep so many bytes of each packet; 0: all")
	countBetween(f, "snaplen", 0, maxSnaplen, "0: all of each packet")
	f.DurationVar(&o.duration, "duration", 0, "end after so long")
	timeBetween(f, "duration", time.Millisecond, aYear, "no end")
	f.Var(byteSize{&o.maxSize}, "max-size", "end when so much was written")
	sizeBetween(f, "max-size", 0, mostBytes, "0: no end")
	f.Var(byteSize{&o.rotateSize}, "rotate-size",
		"begin another file when one is so large: FILE gets a number in its name")
	sizeBetween(f, "rotate-size", 0, mostBytes, "0: one file")
	f.DurationVar(&o.rotateTime, "rotate-time", 0, "begin another file when one is so old")
	timeBetween(f, "rotate-time", time.Second, aYear, "one file")
	f.IntVar(&o.files, "files", 0, "keep so many of those files, the latest; 0: all")
	countBetween(f, "files", 0, math.MaxInt32, "0: all")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no report on standard error")
	f.BoolVar(&o.list, "list", false, "show the captures that run")
	return c
}

// check refuses flags that contradict each other.
func (o *captureOptions) check() error {
	rotates := o.rotateSize > 0 || o.rotateTime > 0
	switch {
	case o.files > 0 && !rotates:
		return errors.New("--files counts files of --rotate-size or --rotate-time: give one of them")
	case o.path == "" && term.IsTerminal(int(os.Stdout.Fd())):
		return errors.New("a terminal shows no packets: give a file with -w, or a pipe: " +
			"usernet capture ... | wireshark -k -i -")
	case rotates && (o.path == "" || o.path == "-"):
		return errors.New("standard output cannot be rotated: give a file with -w")
	}
	return nil
}

// request is what the daemon is asked for: the first argument names a container or a network, unless all are wanted,
// and the others are the filter.
func (o *captureOptions) request(ctx context.Context, cl *api.Client, args []string) (api.CaptureRequest, error) {
	q := api.CaptureRequest{Snaplen: o.snaplen, Count: o.count}
	if !o.all {
		if len(args) == 0 {
			return q, errors.New("what is to be captured is missing: give a container, a network or --all")
		}
		name := args[0]
		args = args[1:]
		_, err := cl.Container(ctx, name)
		switch {
		case err == nil:
			q.Container = name
		case errdefs.Class(err) != errdefs.ErrNotFound:
			return q, err
		default:
			if _, err := cl.Network(ctx, name); err != nil {
				if errdefs.Class(err) == errdefs.ErrNotFound {
					err = fmt.Errorf("no container or network is called %s; with --all all arguments are the filter", name)
				}
				return q, err
			}
			q.Network = name
		}
	}
	q.Filter = strings.Join(args, " ")
	return q, nil
}

func (o *captureOptions) output() capture.Output {
	out := capture.Output{
		Path:       o.path,
		Std:        os.Stdout,
		RotateSize: o.rotateSize,
		RotateTime: o.rotateTime,
		Files:      o.files,
		MaxSize:    o.maxSize,
	}
	if out.Path == "" {
		out.Path = "-"
	}
	return out
}

// record writes a capture until it ends by itself, after a time, or by a signal.
func record(
	ctx context.Context, cl *api.Client, q api.CaptureRequest, o capture.Output, duration time.Duration, report bool,
) error {
	interrupted, unregister := signal.NotifyContext(ctx, os.Interrupt)
	defer unregister()
	// A second SIGTERM is no order to hurry, since timeout(1) sends two; until the command's end.
	stopped, _ := signal.NotifyContext(interrupted, syscall.SIGTERM)
	if duration > 0 {
		var cancel context.CancelFunc
		stopped, cancel = context.WithTimeout(stopped, duration)
		defer cancel()
	}
	r, err := cl.Capture(ctx, q)
	if err != nil {
		return err
	}
	defer r.Close()
	if report {
		o.Begun = func() { announce(r.Bypassing) }
	}
	end := func() {
		if cl.EndCapture(ctx, r.ID) != nil {
			_ = r.Close() // the daemon does not know it, or does not answer
		}
	}
	o.Full = end
	defer context.AfterFunc(stopped, func() {
		unregister() // a second Ctrl-C ends the command at once
		end()
	})()
	sum, err := capture.Copy(r, o)
	if errors.Is(err, syscall.EPIPE) {
		err = nil // who reads has seen enough
	}
	if report && (err == nil || sum.Bytes > 0) { // else there was no file to write to
		fmt.Fprintln(os.Stderr, describe(sum, o))
	}
	return err
}

// announce says that the capture has begun, and how many connections are not in it.
func announce(bypassing int) {
	if bypassing > 0 {
		fmt.Fprintf(os.Stderr, "connections that bypass the interfaces since before this capture, and are not in it: %d; "+
			"later ones are\n", bypassing)
	}
	fmt.Fprintln(os.Stderr, "capturing")
}

// describe is a summary for people.
func describe(s capture.Summary, o capture.Output) string {
	where := "standard output"
	switch {
	case o.Path != "-" && len(s.Files) == 1:
		where = s.Files[0]
	case o.Path != "-":
		where = fmt.Sprintf("%d files", len(s.Files))
	}
	interfaces := "interfaces"
	if s.Endpoints == 1 {
		interfaces = "interface"
	}
	return fmt.Sprintf("%d packets of %d %s in %s (%s); %d matched the filter of %d that passed, %d were lost",
		s.Frames, s.Endpoints, interfaces, where, units.BytesSize(float64(s.Bytes)), s.Counts.Accepted,
		s.Counts.Received, s.Counts.Lost)
}

func listCaptures(ctx context.Context, cl *api.Client) error {
	list, err := cl.Captures(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 4, 1, 2, ' ', 0)
	fmt.Fprintln(w, "CAPTURE\tOF\tINTERFACES\tPACKETS\tLOST\tSINCE\tFILTER")
	for _, c := range list {
		of := "all"
		switch {
		case c.Container != "":
			of = "container " + c.Container
		case c.Network != "":
			of = "network " + c.Network
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", c.ID, of, c.Endpoints, c.Frames, c.Lost,
			units.HumanDuration(time.Since(c.Since)), c.Filter)
	}
	return w.Flush()
}
