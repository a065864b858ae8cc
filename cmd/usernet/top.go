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
		Use:   "top",
		Short: "Watch containers' traffic, flows, DNS questions, drops and ports",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if every < minInterval {
				return fmt.Errorf("an interval of %v is too short: give %v or more", every, minInterval)
			}
			cl, err := client()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())) {
				return top.Run(ctx, cl, every)
			}
			return plainSample(ctx, cl, every)
		},
	}
	c.Flags().DurationVar(&every, "interval", time.Second, "how often it is drawn anew; without a terminal, how long is measured")
	return c
}

// minInterval keeps a command from being what the daemon does most.
const minInterval = 100 * time.Millisecond

// plainSample prints what happens in one interval.
func plainSample(ctx context.Context, src top.Source, every time.Duration) error {
	s := top.New()
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
