package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/daemon"
)

type serveOptions struct {
	socket, state, level, format string
	idle                         time.Duration
	dns                          []string
	ipv6                         bool
}

func serveCommand() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{Use: "serve", Short: "Run the daemon in the foreground", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return serve(o) }}
	f := c.Flags()
	f.StringVar(&o.socket, "socket", "", "where the API listens ($XDG_RUNTIME_DIR/usernet/usernet.sock)")
	f.StringVar(&o.state, "state-dir", "", "where the state is kept ($XDG_STATE_HOME/usernet)")
	f.StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.format, "log-format", "text", "text or json")
	f.StringSliceVar(&o.dns, "dns", nil, "resolvers to forward to instead of the host's")
	f.BoolVar(&o.ipv6, "ipv6", false, "give new networks IPv6 unless they say otherwise")
	f.DurationVar(&o.idle, "exit-when-idle", 0, "end after this long without a container")
	_ = f.MarkHidden("exit-when-idle")
	return c
}

func logger(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: give debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
	}
	return nil, fmt.Errorf("log format %q: give text or json", format)
}

func serve(o serveOptions) error {
	log, err := logger(o.level, o.format)
	if err != nil {
		return err
	}
	if o.state == "" {
		if o.state, err = stateDir(); err != nil {
			return err
		}
	}
	if o.socket == "" {
		dir, err := runtimeDir()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		o.socket = filepath.Join(dir, "usernet.sock")
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	d, err := daemon.New(daemon.Config{Socket: o.socket, StateDir: o.state, Logger: log, Version: version, ExitWhenIdle: o.idle, DNS: o.dns, IPv6: o.ipv6})
	if err != nil {
		return err
	}
	l, err := listen(o.socket)
	if err != nil {
		return errors.Join(err, d.Close())
	}
	s := api.NewServer(d, log)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	log.Info("usernet is listening", "socket", o.socket, "state", o.state, "version", version, "pid", os.Getpid())
	notify("READY=1")
	select {
	case sig := <-signals:
		log.Info("ending", "signal", sig.String())
	case <-d.Done():
		log.Info("ending")
	case err = <-served:
	}
	notify("STOPPING=1")
	return errors.Join(err, s.Close(), d.Close())
}

// listen binds the socket, and takes a dead daemon's place.
func listen(path string) (net.Listener, error) {
	if len(path) > 107 {
		return nil, fmt.Errorf("socket path %s has %d bytes; 107 are possible (unix(7)): choose a shorter one with --socket", path, len(path))
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("another daemon answers at %s: stop it, or choose another --socket", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(path)
	}
	old := syscall.Umask(0o077)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

// notify tells the service manager how far the daemon is (sd_notify(3)).
func notify(state string) {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return
	}
	if addr[0] == '@' {
		addr = "\x00" + addr[1:]
	}
	c, err := net.Dial("unixgram", addr)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
