package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/usernet/usernet/api"
)

// startWait is how long a daemon that was just started may take to answer.
const startWait = 10 * time.Second

// startedClient is client, with a daemon behind it: where none answers on the default socket, one is started.
func startedClient(ctx context.Context) (*api.Client, error) {
	c, err := client()
	if err != nil {
		return nil, err
	}
	err = c.Ping(ctx)
	if err == nil || host != "" || !errors.Is(err, api.ErrNoDaemon) {
		return c, err
	}
	state, err := stateDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	logPath := filepath.Join(state, "daemon.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "serve", "--exit-when-idle", "5m")
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a daemon: %w", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	deadline := time.After(startWait)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for over := false; ; {
		if err := c.Ping(ctx); err == nil {
			return c, nil // perhaps another's: whoever was first serves both
		}
		if over {
			text, _ := os.ReadFile(logPath)
			return nil, fmt.Errorf("the daemon did not start:\n%s", bytes.TrimSpace(text))
		}
		select {
		case <-ended:
			// It may have ended because another run's daemon was first; that one may need a moment to answer.
			ended = nil
		case <-deadline:
			over = true
		case <-tick.C:
		}
	}
}
