package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// host and host6 are the addresses at which every tool reaches the host.
const host, host6 = "192.0.2.1", "2001:db8::1"

// A world holds what runs during the bench.
type world struct {
	dir, binary string
	options     options

	mu       sync.Mutex // guards what follows
	children []*exec.Cmd
	port     int
}

// freePort returns a port that nothing here uses.
func (w *world) freePort() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.port++
	return 20000 + w.port
}

// start starts a program that runs until stop or the end of the bench.
func (w *world) start(name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = w.environ()
	if log, err := os.OpenFile(w.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	w.mu.Lock()
	w.children = append(w.children, cmd)
	w.mu.Unlock()
	return cmd, nil
}

// stop ends a program that start started.
func (w *world) stop(cmd *exec.Cmd) {
	w.mu.Lock()
	for i, c := range w.children {
		if c == cmd {
			w.children = append(w.children[:i], w.children[i+1:]...)
			break
		}
	}
	w.mu.Unlock()
	cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
	cmd.Wait()
	timer.Stop()
}

func (w *world) close() {
	w.mu.Lock()
	children := append([]*exec.Cmd(nil), w.children...)
	w.mu.Unlock()
	for i := len(children) - 1; i >= 0; i-- {
		w.stop(children[i])
	}
}

func (w *world) environ() []string {
	return append(
		os.Environ(),
		"USERNET_HOST=unix://"+w.dir+"/s",
		"XDG_RUNTIME_DIR="+w.dir,
		"XDG_STATE_HOME="+w.dir,
		"LC_ALL=C",
	)
}

// run runs a program to its end and returns what it printed on standard output.
func (w *world) run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = w.environ()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf(
			"%s %s: %w: %s",
			name,
			strings.Join(args, " "),
			err,
			strings.TrimSpace(stderr.String()),
		)
	}
	return stdout.String(), nil
}

// wait waits until check is true.
func wait(what string, check func() bool) error {
	for deadline := time.Now().Add(20 * time.Second); !check(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited 20 s in vain for %s", what)
		}
	}
	return nil
}

// listening reports whether someone listens on a TCP port in the network namespace of a process.
func listening(pid, port int) bool {
	for _, file := range []string{"tcp", "tcp6"} {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, file))
		if strings.Contains(string(text), fmt.Sprintf(":%04X 0", port)) {
			return true
		}
	}
	return false
}

// iperf runs an iperf3 client, behind the command prefix, and returns Gbit/s as the receiver saw them.
func (w *world) iperf(prefix []string, address string, port, streams int, reverse bool) (float64, error) {
	args := append(
		append([]string{}, prefix...),
		"iperf3",
		"-J",
		"-c",
		address,
		"-p",
		strconv.Itoa(port),
		"-t",
		strconv.Itoa(w.options.seconds),
		"-P",
		strconv.Itoa(streams),
	)
	if reverse {
		args = append(args, "-R")
	}
	var err error
	for range 3 { // a server may still be busy with the end of the last measurement
		var out string
		var report struct {
			Error string
			End   struct {
				Received struct {
					Rate float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			}
		}
		out, err = w.run(args[0], args[1:]...)
		if e := json.Unmarshal([]byte(out), &report); e == nil && report.Error != "" {
			err = errors.New(report.Error)
		}
		if err == nil {
			return report.End.Received.Rate / 1e9, nil
		}
		time.Sleep(500 * time.Millisecond)
	}
	return 0, err
}
