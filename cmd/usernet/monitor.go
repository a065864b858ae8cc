package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/joblog"
	"github.com/usernet/usernet/sandbox"
)

// monitorReport is the line by which a monitor says that the command runs, or why not.
type monitorReport struct {
	Error string
	Code  int
}

// maxLog is the size in bytes at which a container's log is turned over; one older file is kept.
const maxLog = 10 << 20

// pipes gives the sandbox pipes for its output, whose content is for the container's log and, where they are not nil,
// for stdout and stderr.
func (j *job) pipes(stdout, stderr *os.File) error {
	out, w1, err := pipeOutput("stdout", stdout)
	if err != nil {
		return err
	}
	errs, w2, err := pipeOutput("stderr", stderr)
	if err != nil {
		return errors.Join(err, w1.Close(), unix.Close(out.fd))
	}
	j.Sandbox.Stdout, j.Sandbox.Stderr, j.outputs = w1, w2, []*output{out, errs}
	return nil
}

// log copies what comes through the pipes. The function that it returns is to be called when the sandbox has ended:
// after it the log is whole.
func (j *job) log() (ended func()) {
	log := &logFile{path: filepath.Join(j.StateDir, "containers", j.Container.ID, "log")}
	var copying sync.WaitGroup
	copying.Go(func() { log.follow(j.outputs...) })
	return func() {
		_, _ = j.Sandbox.Stdout.Close(), j.Sandbox.Stderr.Close()
		copying.Wait()
	}
}

// monitorWord is the command that is a container's monitor.
const monitorWord = "monitor"

func monitorCommand() *cobra.Command {
	return &cobra.Command{
		Use:    monitorWord,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
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
			client := api.NewClient(j.Socket)
			if j.Again {
				if err := errors.Join(j.mode(c.Context(), client), j.enterCgroup(c.Context(), client)); err != nil {
					report(monitorReport{err.Error(), 125})
					return err
				}
			}
			attendant := j.meetAttendant()
			attendant.follow()
			if err := j.pipes(attendant.outputs()); err != nil {
				report(monitorReport{err.Error(), 125})
				return err
			}
			j.Sandbox.Stdin = attendant.stdin()
			stdout := os.Stdout
			code, err := j.run(c.Context(), client, func() {
				report(monitorReport{})
				_ = stdout.Close()
				_ = os.Stdin.Close()
			}, j.log())
			if err != nil {
				r := monitorReport{err.Error(), 125}
				var e *sandbox.ExitError
				if errors.As(err, &e) {
					r.Code = e.Code
				}
				report(r)
				return exitCode(125)
			}
			attendant.ended(code)
			return exitCode(code)
		},
	}
}

// logFile holds a container's output, a line of JSON for each line, as Docker's json-file does.
type logFile struct {
	path string
	mu   sync.Mutex
	file *os.File
	size int64
}

func (l *logFile) write(line joblog.Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil || l.size > maxLog {
		if l.file != nil {
			_ = l.file.Close()
			_ = os.Rename(l.path, joblog.Older(l.path))
		}
		f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_NOFOLLOW, 0o600) // as writeInState
		if err != nil {
			return
		}
		l.file, l.size = f, 0
		if info, err := f.Stat(); err == nil {
			l.size = info.Size() // of earlier runs
		}
	}
	b, err := json.Marshal(line)
	if err != nil {
		return
	}
	n, _ := l.file.Write(append(b, '\n'))
	l.size += int64(n)
}
