package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// health runs the container's check again and again, and reports what it says, until ctx ends. The first process of the
// sandbox is p.
func (j *job) health(ctx context.Context, c *api.Client, p *sandbox.Process) {
	check := j.Container.Health.WithDefaults()
	started := time.Now()
	h := network.Health{Status: network.HealthStarting}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(h.Wait(check, started, time.Now())):
		}
		r := j.probe(ctx, p.Pid(), check)
		if ctx.Err() != nil {
			return
		}
		h = h.After(check, started, r)
		// A daemon that is not there now gets the next report.
		_ = c.ContainerHealth(ctx, j.Container.ID, p.Pid(), h)
	}
}

// probe runs a check once.
func (j *job) probe(ctx context.Context, pid int, check network.HealthCheck) (r network.HealthResult) {
	r = network.HealthResult{Start: time.Now(), ExitCode: -1}
	defer func() { r.End = time.Now() }()
	read, write, err := os.Pipe()
	if err != nil {
		r.Output = err.Error()
		return r
	}
	defer read.Close()
	spec := j.Sandbox
	spec.Command, spec.TTY, spec.Stdin = []string{"/bin/sh", "-c", check.Command}, false, nil
	spec.Stdout, spec.Stderr = write, write
	p, err := sandbox.Exec(ctx, sandbox.Target{Pid: pid}, spec)
	_ = write.Close()
	if err != nil {
		r.Output = err.Error()
		if e := new(sandbox.ExitError); errors.As(err, &e) {
			r.ExitCode = e.Code
		}
		return r
	}
	output := make(chan string, 1)
	go func() { output <- readSome(read) }()
	ended := make(chan int, 1)
	go func() {
		code, err := p.Wait()
		if err != nil {
			code = -1
		}
		ended <- code
	}()
	late := time.NewTimer(check.Timeout)
	defer late.Stop()
	select {
	case r.ExitCode = <-ended:
	case <-late.C:
		endGroup(p, ended)
		r.Output = fmt.Sprintf("Health check exceeded timeout (%v)", check.Timeout) // Docker's text
	case <-ctx.Done():
		endGroup(p, ended)
	}
	// What the check has left running may hold the pipe for ever.
	_ = read.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if text := <-output; r.Output == "" {
		r.Output = text
	}
	return r
}

// endGroup kills a check with all that it has started in its session, and waits for it.
func endGroup(p *sandbox.Process, ended <-chan int) {
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	p.Kill()
	<-ended
}

// readSome reads to the end, and returns as much of it as is kept.
func readSome(r io.Reader) string {
	var kept strings.Builder
	_, _ = io.Copy(&kept, io.LimitReader(r, network.MaxHealthOutput))
	_, _ = io.Copy(io.Discard, r) // so that the check does not wait for room
	return strings.ToValidUTF8(kept.String(), "\uFFFD")
}

// startHealth starts the container's check, where it has one, and returns what ends it.
func (j *job) startHealth(ctx context.Context, c *api.Client, p *sandbox.Process) (stop func()) {
	if j.Container.Health.Command == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		j.health(ctx, c, p)
	}()
	return func() {
		cancel()
		<-done
	}
}
