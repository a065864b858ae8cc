package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/usernet/usernet/observe/top"
)

func topCommand() *cobra.Command {
	var every time.Duration
	c := &cobra.Command{
		Use:   "top [CONTAINER]",
		Short: "Watch containers' traffic, flows, DNS questions, drops and ports",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			s := top.New()
			if len(args) > 0 {
				one, err := cl.Container(ctx, args[0])
				if err != nil {
					return err
				}
				s.Only(one.Name)
			}
			if term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())) {
				if err := cl.Ping(ctx); err != nil {
					return err
				}
				cl.OnSilence = nil // from now on the screen says it
				return top.Run(ctx, cl, s, every)
			}
			return plainSample(ctx, cl, s, every)
		},
	}
	c.Flags().DurationVar(&every, "interval", time.Second, "how often it is drawn anew; without a terminal, how long is measured")
	timeBetween(c.Flags(), "interval", minInterval, maxInterval, "")
	return c
}

// Bounds of --interval. The shortest keeps a command from being what the daemon does most.
const (
	minInterval = 100 * time.Millisecond
	maxInterval = 24 * time.Hour
)

// plainSample prints what happens in one interval.
func plainSample(ctx context.Context, src top.Source, s *top.State, every time.Duration) error {
	for i := range 2 {
		if i > 0 {
			select {
			case <-time.After(every):
			case <-ctx.Done():
				return errors.New("interrupted")
			}
		}
		n, err := src.Sample(ctx)
		if err != nil {
			return err
		}
		s.Update(n)
	}
	fmt.Print(s.Sample())
	return nil
}
