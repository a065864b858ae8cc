package main

import (
	"errors"
	"math"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// stopOptions are how a container is asked to end.
type stopOptions struct {
	seconds int
	signal  string
}

func (o *stopOptions) add(f *pflag.FlagSet) {
	f.IntVarP(&o.seconds, "time", "t", 10,
		"seconds to wait before killing, instead of the container's own; negative: without end")
	seconds(f, "time")
	f.StringVarP(&o.signal, "signal", "s", "", "signal to send, instead of the container's own")
}

// timeout is what was asked for; nil: the container's own.
func (o *stopOptions) timeout(f *pflag.FlagSet) *time.Duration {
	if !f.Changed("time") {
		return nil
	}
	wait := time.Duration(o.seconds) * time.Second
	return &wait
}

func startCommand() *cobra.Command {
	return each("start CONTAINER...", "Start containers again that have ended",
		func(c *cobra.Command, cl *api.Client, ref string) error {
			return cl.ContainerStartAgain(c.Context(), ref)
		})
}

func restartCommand() *cobra.Command {
	var o stopOptions
	c := each("restart CONTAINER...", "Stop containers and start them again",
		func(c *cobra.Command, cl *api.Client, ref string) error {
			return cl.ContainerRestart(c.Context(), ref, o.signal, o.timeout(c.Flags()))
		})
	o.add(c.Flags())
	return c
}

// lifeFlags are the flags of run about a container's end, and what follows it.
type lifeFlags struct {
	restart    string
	stopSignal string
	stop       optionalInt
	health     network.HealthCheck
	noHealth   bool
}

func (l *lifeFlags) add(f *pflag.FlagSet) {
	f.StringVar(&l.restart, "restart", "no",
		"when it runs again after its end: no, on-failure[:N], always, unless-stopped")
	f.StringVar(&l.stopSignal, "stop-signal", "", "signal by which stop asks it to end (TERM)")
	f.Var(&l.stop, "stop-timeout", "seconds that stop gives it to end (10)")
	seconds(f, "stop-timeout")
	h := &l.health
	f.StringVar(&h.Command, "health-cmd", "", "command for /bin/sh in the container that fails where it is not healthy")
	f.DurationVar(&h.Interval, "health-interval", 0, "time between two runs of it (30s)")
	f.DurationVar(&h.Timeout, "health-timeout", 0, "how long it may take (30s)")
	f.IntVar(&h.Retries, "health-retries", 0, "so many failures in a row are unhealthy (3)")
	f.DurationVar(&h.StartPeriod, "health-start-period", 0, "how long after the start failures do not count (0s)")
	f.DurationVar(&h.StartInterval, "health-start-interval", 0, "time between two runs in that period (5s)")
	countBetween(f, "health-retries", 0, math.MaxInt32, "0: 3")
	for name, zero := range map[string]string{"health-interval": "30s", "health-timeout": "30s",
		"health-start-period": "none", "health-start-interval": "5s"} {
		timeBetween(f, name, network.MinHealthTime, 100*aYear, zero)
	}
	f.BoolVar(&l.noHealth, "no-healthcheck", false, "no health check, which is so unless there is a command")
}

// record puts the flags into what the daemon remembers of the container.
func (l *lifeFlags) record(spec *network.ContainerSpec) (err error) {
	if spec.Restart, err = network.ParseRestartPolicy(l.restart); err != nil {
		return err
	}
	if spec.AutoRemove && !spec.Restart.IsNone() {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	spec.StopSignal, spec.StopTimeout = l.stopSignal, l.stop.value
	switch times := l.health != (network.HealthCheck{}); {
	case l.noHealth && times:
		return errors.New("--no-healthcheck conflicts with --health-* options")
	case times && l.health.Command == "":
		return errors.New("the --health-* options need a --health-cmd")
	}
	spec.Health = l.health
	return l.health.Check()
}
