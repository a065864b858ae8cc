package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
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
	old, now := logReader{path: path + ".1"}, logReader{path: path}
	defer old.close()
	defer now.close()
	lines, err := old.read()
	if err == nil {
		var more []logLine
		more, err = now.read()
		lines = append(lines, more...)
	}
	if err != nil {
		return err
	}
	if lines, err = o.last(lines); err != nil {
		return err
	}
	o.print(lines)
	for running {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(logPoll):
		}
		var gone error
		running, gone = o.running(ctx, cl, id)
		lines, err := now.read()
		if err != nil {
			return err
		}
		o.print(lines)
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

// logReader reads a log file that grows, and may be turned over meanwhile.
type logReader struct {
	path string
	file *os.File
	part []byte // of a line that is not whole yet
}

// read returns the lines that came since the last call; a file that is not there (yet) has none.
func (r *logReader) read() ([]logLine, error) {
	var lines []logLine
	for {
		if r.file == nil {
			f, err := os.Open(r.path)
			if errors.Is(err, os.ErrNotExist) {
				return lines, nil
			}
			if err != nil {
				return lines, err
			}
			r.file = f
		}
		at, errAt := r.file.Stat()
		now, errNow := os.Stat(r.path) // before reading: what is turned over after this has been read to its end
		b, err := io.ReadAll(r.file)
		if err != nil {
			return lines, err
		}
		r.part = append(r.part, b...)
		for {
			line, rest, whole := bytes.Cut(r.part, []byte{'\n'})
			if !whole {
				break
			}
			var l logLine
			if json.Unmarshal(line, &l) == nil {
				lines = append(lines, l)
			}
			r.part = rest
		}
		if errAt != nil || errNow != nil || os.SameFile(at, now) {
			return lines, nil
		}
		r.close()
	}
}

func (r *logReader) close() {
	if r.file != nil {
		_ = r.file.Close() // it was only read
		r.file = nil
	}
}

// last applies --tail.
func (o *logsOptions) last(lines []logLine) ([]logLine, error) {
	if o.tail == "all" || o.tail == "" {
		return lines, nil
	}
	n, err := strconv.Atoi(o.tail)
	if err != nil {
		return nil, fmt.Errorf("invalid value %q for --tail: give a number, or all", o.tail)
	}
	if n < 0 {
		return lines, nil // as Docker: everything
	}
	return lines[max(0, len(lines)-n):], nil
}

// logTime is RFC 3339 with all nine digits, so that columns stand under each other.
const logTime = "2006-01-02T15:04:05.000000000Z07:00"

func (o *logsOptions) print(lines []logLine) {
	for _, l := range lines {
		if l.Time.Before(o.sinceTime) || !o.endsTime.IsZero() && l.Time.After(o.endsTime) {
			continue
		}
		var out io.Writer = os.Stdout
		if l.Stream == "stderr" {
			out = os.Stderr
		}
		if o.timestamps {
			fmt.Fprint(out, l.Time.UTC().Format(logTime), " ")
		}
		fmt.Fprint(out, l.Log)
	}
}
