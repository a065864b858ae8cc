package main

import (
	"context"
	"strings"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// `usernet run` and the daemon work at the same time where they can: the sandbox's namespaces are made while the daemon
// makes the container's record, and the sandbox is set up while the daemon makes its network.

// beginning is a sandbox that is begun before its container is made.
type beginning struct {
	done    chan struct{} // closed once the rest is set
	process *sandbox.Process
	err     error
}

// begin makes the namespaces of a sandbox with a network of its own in the background: that takes about as long as the
// daemon takes for the container.
func (j *job) begin(ctx context.Context, c *api.Client, mode string) {
	if mode == network.HostName || strings.HasPrefix(mode, "container:") {
		return
	}
	b, spec := &beginning{done: make(chan struct{})}, j.Sandbox
	go func() {
		defer close(b.done)
		shareProgram(ctx, c)
		b.process, b.err = sandbox.Start(ctx, spec)
	}()
	j.begun = b
}

// abandon ends the sandbox that was begun, unless it was taken.
func (j *job) abandon() {
	if j.begun == nil {
		return
	}
	<-j.begun.done
	if j.begun.process != nil {
		j.begun.process.Kill()
	}
	j.begun = nil
}

// process starts the sandbox, or takes the one that was begun.
func (j *job) process(ctx context.Context, c *api.Client) (*sandbox.Process, error) {
	b := j.begun
	if b == nil || j.Sandbox.HostNetwork || j.Sandbox.JoinNet != nil {
		shareProgram(ctx, c)
		return sandbox.Start(ctx, j.Sandbox)
	}
	<-b.done
	j.begun = nil
	return b.process, b.err
}

// setUpMeanwhile has the sandbox set up while the daemon makes its network, and returns what waits for that. Which
// files of /etc a sandbox has that shares its network is not known before the daemon says so: Proceed sets it up.
func (j *job) setUpMeanwhile(p *sandbox.Process) (wait func() error) {
	if j.Sandbox.HostNetwork || j.Sandbox.JoinNet != nil {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() { done <- p.SetUp(j.Sandbox, j.Container.Hostname) }()
	return func() error { return <-done }
}
