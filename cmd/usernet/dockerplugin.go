package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/runtimes/libnetwork"
)

// dockerPluginDir is where Docker's plugins listen, below the directory of the API's socket.
func dockerPluginDir() (string, error) {
	dir, err := runtimeDir()
	return filepath.Join(dir, "docker"), err
}

func dockerPluginCommand() *cobra.Command {
	var docker, level string
	c := &cobra.Command{
		Use:   "docker-plugin",
		Short: "Serve rootless Docker's networks of the drivers usernet and usernet-overlay",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return servePlugin(c.Context(), docker, level)
		},
	}
	f := c.Flags()
	f.StringVar(&docker, "docker-host", os.Getenv("DOCKER_HOST"),
		"Docker's API, which knows the names of containers (unix://$XDG_RUNTIME_DIR/docker.sock)")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return c
}

// servePlugin answers Docker until a signal ends it.
func servePlugin(ctx context.Context, docker, level string) error {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("--log-level: %w", err)
	}
	dir, err := dockerPluginDir()
	if err != nil {
		return err
	}
	state, err := stateDir()
	if err != nil {
		return err
	}
	api, ok := strings.CutPrefix(docker, "unix://")
	switch {
	case docker == "":
		api = filepath.Join(filepath.Dir(filepath.Dir(dir)), "docker.sock")
	case !ok:
		return fmt.Errorf("--docker-host %q: only unix sockets are possible: give unix:///path", docker)
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	p, err := libnetwork.Start(libnetwork.Config{
		Dir:    dir,
		State:  filepath.Join(state, "docker-networks.json"),
		Docker: api,
		Daemon: startedClient, Answering: client,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})),
	})
	if err != nil {
		return err
	}
	_, _ = sd.SdNotify(false, sd.SdNotifyReady) // there may be no service manager
	<-ctx.Done()
	return p.Close()
}
