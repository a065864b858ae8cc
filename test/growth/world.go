package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
)

// world is a daemon of a table's own.
type world struct {
	dir         string
	binary      string
	client      *api.Client
	daemon      *exec.Cmd
	descriptors int // that the daemon may have
	containers  int // that it has
	closing     []func() error
}

// patience is how long a daemon may take to start or to end.
const patience = 2 * time.Minute

func newWorld(ctx context.Context, dir, binary string) (*world, error) {
	dir, err := os.MkdirTemp(dir, "w-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, binary: binary, client: api.NewClient(filepath.Join(dir, "sock"))}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	w.descriptors = int(min(limit.Max, 1<<30))
	if err := w.start(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// start starts the daemon, and returns when it serves all containers that it had.
func (w *world) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(w.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	state := filepath.Join(w.dir, "state")
	w.daemon = exec.Command(w.binary, "serve", "--socket", w.client.Socket, "--state-dir", state)
	w.daemon.Stdout, w.daemon.Stderr = log, log
	w.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := w.daemon.Start(); err != nil {
		w.daemon = nil
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if err = w.client.Ping(ctx); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the daemon does not answer: %w\n%s", err, w.logTail())
		case <-time.After(2 * time.Millisecond):
		}
	}
	list, err := w.client.Containers(ctx, api.ContainerList{})
	if err == nil && len(list) != w.containers {
		err = fmt.Errorf("it has %d containers, and had %d", len(list), w.containers)
	}
	return err
}

// end ends the daemon.
func (w *world) end() error {
	if w.daemon == nil {
		return nil
	}
	d := w.daemon
	w.daemon = nil
	if err := d.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.AfterFunc(patience, func() { _ = d.Process.Kill() })
	defer timer.Stop()
	return d.Wait()
}

// restart says how long it takes to end and to start the daemon.
func (w *world) restart(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	err := w.end()
	if err == nil {
		err = w.start(ctx)
	}
	return time.Since(begin), err
}

func (w *world) close() error {
	var errs []error
	for _, f := range w.closing {
		errs = append(errs, f())
	}
	return errors.Join(append(errs, w.end())...)
}

// logTail is the end of the daemon's log.
func (w *world) logTail() string {
	text, _ := os.ReadFile(filepath.Join(w.dir, "log"))
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(len(lines)-10, 0):], []byte("\n")))
}

// ticks are those of a second in /proc/PID/stat (sysconf(3), _SC_CLK_TCK), the same on all of Go's architectures.
const ticks = 100

// processor is the daemon's processor time, user and system.
func (w *world) processor() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.daemon.Process.Pid))
	if err != nil {
		return 0, err
	}
	var sum int64
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // from the third, the state, on
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat is %q", text)
	}
	for _, f := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / ticks, nil
}

// memory is what the daemon has of its own, in bytes.
func (w *world) memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemon.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	line, _, _ := strings.Cut(rest, "\n")
	kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "kB")), 10, 64)
	return kib << 10, err
}
