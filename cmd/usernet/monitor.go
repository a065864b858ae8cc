package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/sandbox"
)

// monitorReport is the line by which a monitor says that the command runs, or why not.
type monitorReport struct {
	Error string
	Code  int
}

// maxLog is the size in bytes at which a container's log is turned over; one older file is kept.
const maxLog = 10 << 20

func monitorCommand() *cobra.Command {
	return &cobra.Command{Use: "monitor", Hidden: true, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		var j job
		if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
			return err
		}
		report := func(r monitorReport) {
			b, _ := json.Marshal(r) // a string and a number always encode
			_, _ = os.Stdout.Write(append(b, '\n'))
			if null, err := os.OpenFile("/dev/null", os.O_RDWR, 0); err == nil {
				os.Stdout = null
			}
		}
		log := &logFile{path: filepath.Join(j.StateDir, "containers", j.Container.ID, "log")}
		var copies sync.WaitGroup
		for _, s := range []struct {
			name string
			to   **os.File
		}{{"stdout", &j.Sandbox.Stdout}, {"stderr", &j.Sandbox.Stderr}} {
			r, w, err := os.Pipe()
			if err != nil {
				report(monitorReport{err.Error(), 125})
				return err
			}
			*s.to = w
			copies.Go(func() { log.copy(s.name, r) })
		}
		stdout := os.Stdout
		code, err := j.run(c.Context(), api.NewClient(j.Socket), func() {
			report(monitorReport{})
			_ = stdout.Close()
			_ = os.Stdin.Close()
		}, func() { // whoever hears of the end finds the whole log
			_ = j.Sandbox.Stdout.Close()
			_ = j.Sandbox.Stderr.Close()
			copies.Wait()
		})
		if err != nil {
			r := monitorReport{err.Error(), 125}
			var e *sandbox.ExitError
			if errors.As(err, &e) {
				r.Code = e.Code
			}
			report(r)
			return exitCode(125)
		}
		return exitCode(code)
	}}
}

// logFile holds a container's output, a line of JSON for each line, as Docker's json-file does.
type logFile struct {
	path string
	mu   sync.Mutex
	file *os.File
	size int64
}

type logLine struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

func (l *logFile) copy(stream string, r io.Reader) {
	b := bufio.NewReaderSize(r, 16<<10)
	for {
		line, err := b.ReadSlice('\n')
		if len(line) > 0 {
			l.write(logLine{string(line), stream, time.Now()})
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (l *logFile) write(line logLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil || l.size > maxLog {
		if l.file != nil {
			_ = l.file.Close()
			_ = os.Rename(l.path, l.path+".1")
		}
		f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return
		}
		l.file, l.size = f, 0
	}
	b, err := json.Marshal(line)
	if err != nil {
		return
	}
	n, _ := l.file.Write(append(b, '\n'))
	l.size += int64(n)
}
