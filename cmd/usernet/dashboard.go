package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/observe/dashboard"
)

func dashboardCommand() *cobra.Command {
	var address string
	c := &cobra.Command{
		Use:   "dashboard",
		Short: "Serve a page about networks, containers and flows to your browser",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			if err := cl.Ping(c.Context()); err != nil {
				return err
			}
			cl.OnSilence = nil // from now on the page says it
			l, err := listenLoopback(c.Context(), address)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			fmt.Fprintln(os.Stderr, "Open the link within 5 minutes. It is good once; Enter makes another one, Ctrl-C ends.")
			return dashboard.New(cl).Serve(ctx, l, inputLines(ctx), func(link string) { fmt.Println(link) })
		},
	}
	c.Flags().StringVar(&address, "listen", "127.0.0.1:0", "`ADDRESS:PORT` of the loopback; port 0 is one that is free")
	return c
}

// listenLoopback listens where other machines cannot connect.
func listenLoopback(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("--listen %s: %w: give ADDRESS:PORT, such as 127.0.0.1:8090", address, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("--listen %s: the dashboard is for this machine: give an address of the loopback, such as "+
			"127.0.0.1, and reach it from another machine by ssh -L PORT:127.0.0.1:PORT", address)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, errdefs.About(topicOfListen(err), fmt.Errorf("%w: choose another --listen", err))
	}
	return l, nil
}

// topicOfListen is that of a port of the host that cannot be listened on.
func topicOfListen(err error) errdefs.Topic {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return errdefs.TopicPortTaken
	case errors.Is(err, syscall.EACCES):
		return errdefs.TopicPortLow
	}
	return errdefs.TopicPortBind
}

// inputLines has a value for each line on standard input, and is closed at its end. In the background, a terminal
// cannot be read from; the signal that would stop the process then is ignored, so that reading fails.
func inputLines(ctx context.Context) <-chan struct{} {
	signal.Ignore(syscall.SIGTTIN)
	c := make(chan struct{})
	go func() {
		defer close(c)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			select {
			case c <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return c
}
