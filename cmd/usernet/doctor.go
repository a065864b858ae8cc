package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
)

// partLimit is how long one part of a report may take: a daemon, or a file system, may hang.
const partLimit = 4 * time.Second

// doctor gathers a report. Nothing of it may be a secret: parts leave out what could be one, and the whole is cleaned
// (redactor) before anybody sees it.
type doctor struct {
	cl       *api.Client
	clean    redactor
	logs     []string // further log files
	answers  bool     // the daemon does
	stateDir string
	info     api.Info
	parts    []reportPart

	mu       sync.Mutex // guards problems: a part that is late may still run
	problems []problem
}

// reportPart is a part of the report.
type reportPart struct{ title, text string }

// problem is what is known to go wrong, and the topic that says what to do.
type problem struct {
	topic errdefs.Topic
	text  string
}

func doctorCommand() *cobra.Command {
	var output string
	d := &doctor{}
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look for known problems, and gather a report without secrets",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if d.cl, err = client(); err != nil {
				return err
			}
			d.cl.OnSilence = nil // it is what the report says, after less time
			d.gather(c.Context())
			if output == "" {
				_, err = io.WriteString(os.Stdout, d.report())
				return err
			}
			if err := d.write(output); err != nil {
				return err
			}
			fmt.Print(d.clean.clean(d.problemText()))
			fmt.Printf("The report is in %s. Read it before you pass it on: it has names and addresses.\n", output)
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "write the report to a `FILE`, packed where its name ends in .tar.gz")
	c.Flags().StringArrayVar(&d.logs, "log", nil, "the `FILE` with the daemon's log, where it is in another than daemon.log of the state directory")
	return c
}

// gather fills the report. No part keeps the others from being there.
func (d *doctor) gather(ctx context.Context) {
	d.stateDir, _ = stateDir() // "": there is none to look at
	d.part(ctx, "Daemon", d.daemonPart)
	d.part(ctx, "", d.collectSecrets)
	d.part(ctx, "Version", d.versionPart)
	d.part(ctx, "Machine", d.machinePart)
	d.part(ctx, "Check", d.checkPart)
	d.part(ctx, "Configuration", d.configPart)
	for _, p := range []struct {
		title string
		f     func(context.Context, io.Writer) error
	}{
		{"Networks", d.networksPart}, {"Containers", d.containersPart}, {"Counters", d.countersPart},
		{"Drops, flows and names", d.samplePart}, {"Limits", d.limitsPart}, {"Cluster", d.clusterPart},
	} {
		if d.answers {
			d.part(ctx, p.title, p.f)
		} else {
			d.parts = append(d.parts, reportPart{p.title, "The daemon does not answer.\n"})
		}
	}
	d.part(ctx, "Uplinks", d.uplinksPart)
	d.part(ctx, "Store", d.storePart)
	d.part(ctx, "Log", d.logPart)
}

// part adds a part, or what kept it from being made in time. A function that does not heed its context is left behind:
// the command ends soon.
func (d *doctor) part(ctx context.Context, title string, f func(context.Context, io.Writer) error) {
	ctx, cancel := context.WithTimeout(ctx, partLimit)
	defer cancel()
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		var b bytes.Buffer
		err := f(ctx, &b)
		done <- result{b.String(), err}
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		r.err = fmt.Errorf("there is no answer within %v", partLimit)
	}
	if r.err != nil {
		r.text += "Not complete: " + r.err.Error() + "\n"
	}
	if title != "" {
		d.parts = append(d.parts, reportPart{title, r.text})
	}
}

// finds notes a problem.
func (d *doctor) finds(topic errdefs.Topic, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problems = append(d.problems, problem{topic, fmt.Sprintf(format, args...)})
}

// findsOnce notes a problem, unless there is one of its topic.
func (d *doctor) findsOnce(topic errdefs.Topic, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.ContainsFunc(d.problems, func(p problem) bool { return p.topic == topic }) {
		d.problems = append(d.problems, problem{topic, fmt.Sprintf(format, args...)})
	}
}

// problemText lists the problems, each with what to read.
func (d *doctor) problemText() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.problems) == 0 {
		return "No known problem was found.\n"
	}
	var b strings.Builder
	for _, p := range d.problems {
		fmt.Fprintf(&b, "PROBLEM  %s\n         usernet explain %s   (docs/troubleshooting.md#%[2]s)\n", p.text, p.topic)
	}
	return b.String()
}

// report is all of it.
func (d *doctor) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "usernet doctor, %s\n\n== Problems\n%s", time.Now().UTC().Format(time.RFC3339), d.problemText())
	for _, p := range d.parts {
		fmt.Fprintf(&b, "\n== %s\n%s", p.title, p.text)
	}
	return d.clean.clean(b.String())
}

// write writes the report to a file that only its owner can read.
func (d *doctor) write(name string) error {
	content := []byte(d.report())
	if strings.HasSuffix(name, ".tar.gz") || strings.HasSuffix(name, ".tgz") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		t := tar.NewWriter(z)
		err := t.WriteHeader(&tar.Header{Name: "usernet-report/report.txt", Mode: 0o600, Size: int64(len(content)),
			ModTime: time.Now(), Format: tar.FormatPAX})
		_, wrote := t.Write(content)
		if err := errors.Join(err, wrote, t.Close(), z.Close()); err != nil {
			return err
		}
		content = b.Bytes()
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}
