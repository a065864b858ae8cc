package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "measure only the tables whose names match `REGEXP`, such as 'ports|flows'")
	most := flag.Int("most", 100_000, "leave out sizes above `N`")
	binary := flag.String("usernet", "", "measure this `BINARY` instead of building one")
	markdown := flag.String("markdown", "", "write the tables to `FILE` too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *only, *most, *binary, *markdown)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "growth:", err)
		os.Exit(1)
	}
}

// run measures all tables whose names match.
func run(ctx context.Context, only string, most int, binary, markdown string) error {
	if os.Geteuid() == 0 {
		return errors.New("run it as an ordinary user (make bench-growth switches to one)")
	}
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	dir, err := os.MkdirTemp("/tmp", "ung-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if binary == "" {
		binary = filepath.Join(dir, "usernet")
		if out, err := exec.CommandContext(ctx, "scripts/build.sh", binary).CombinedOutput(); err != nil {
			return fmt.Errorf("scripts/build.sh: %w\n%s", err, out)
		}
	}
	var text strings.Builder
	for _, t := range tables {
		if !wanted.MatchString(t.name) {
			continue
		}
		rows, err := t.measure(ctx, dir, binary, most)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		part := format(t, rows)
		fmt.Print(part)
		text.WriteString(part)
	}
	if markdown == "" {
		return nil
	}
	return os.WriteFile(markdown, []byte(text.String()), 0o644)
}

// table is one kind of growth.
type table struct {
	name  string
	sizes []int
	// files is how many descriptors of the daemon each of them takes.
	files int
	fill  func(w *world) filling
}

// filling adds what a table counts to a daemon.
type filling struct {
	// add makes there be size of them; there are fewer now.
	add func(ctx context.Context, size int) error
	// more adds the i-th one above those, and gone takes it away again; gone may be nil.
	more, gone func(ctx context.Context, i int) error
	// changes are measured besides, by what their columns are called.
	changes []change
	// restarts says that the daemon is ended and started again.
	restarts bool
}

type change struct {
	name string
	do   func(ctx context.Context, i int) error
}

// row is what was measured at a size.
type row struct {
	size      int
	left      string // why nothing was measured
	cells     map[string]float64
	processor time.Duration // for each that was added
	memory    int64         // bytes
}

// samples are how often a time is measured of which the median counts.
const samples = 15

// spare is how many descriptors a daemon has besides those that a table counts.
const spare = 200

func (t table) measure(ctx context.Context, dir, binary string, most int) (rows []row, err error) {
	w, err := newWorld(ctx, dir, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	f := t.fill(w)
	had := 0
	for _, size := range t.sizes {
		if size > most {
			break
		}
		if limit := w.descriptors; size*t.files+spare > limit {
			rows = append(rows, row{size: size, left: fmt.Sprintf("needs %d descriptors; the limit is %d (ulimit -Hn)",
				size*t.files+spare, limit)})
			continue
		}
		before, err := w.processor()
		if err != nil {
			return nil, err
		}
		if err := f.add(ctx, size); err != nil {
			return nil, fmt.Errorf("%d of them: %w\n%s", size, err, w.logTail())
		}
		after, err := w.processor()
		if err != nil {
			return nil, err
		}
		r := row{size: size, processor: (after - before) / time.Duration(size-had), cells: map[string]float64{}}
		if err := t.row(ctx, w, f, &r); err != nil {
			return nil, fmt.Errorf("with %d of them: %w\n%s", size, err, w.logTail())
		}
		had = size
		rows = append(rows, r)
		fmt.Fprintf(os.Stderr, "growth: %s: %d: %v, %v each, %d KiB\n", t.name, size, r.cells, r.processor,
			r.memory>>10)
	}
	return rows, nil
}

// row measures at a size.
func (t table) row(ctx context.Context, w *world, f filling, r *row) (err error) {
	if r.memory, err = w.memory(); err != nil {
		return err
	}
	var more []time.Duration
	for i := range samples {
		begin := time.Now()
		if err := f.more(ctx, i); err != nil {
			return err
		}
		more = append(more, time.Since(begin))
		if f.gone == nil {
			continue
		}
		if err := f.gone(ctx, i); err != nil {
			return err
		}
	}
	r.cells[columnMore] = milliseconds(more)
	for _, c := range f.changes {
		var times []time.Duration
		for i := range samples {
			begin := time.Now()
			if err := c.do(ctx, i); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			times = append(times, time.Since(begin))
		}
		r.cells[c.name] = milliseconds(times)
	}
	if f.restarts {
		took, err := w.restart(ctx)
		if err != nil {
			return err
		}
		r.cells[columnRestart] = float64(took) / float64(time.Millisecond)
	}
	return nil
}
