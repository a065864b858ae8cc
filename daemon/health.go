package daemon

import (
	"context"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// ReportHealth takes what a container's monitor has found out by its check. A report about an earlier run of the
// container, in which pid was its first process, counts for nothing.
func (d *Daemon) ReportHealth(_ context.Context, ref string, pid int, h network.Health) error {
	switch h.Status {
	case network.HealthStarting, network.HealthHealthy, network.HealthUnhealthy:
	default:
		return errdefs.Invalid("invalid value for health: %.20q", h.Status)
	}
	h.Log = h.Log[max(0, len(h.Log)-network.KeptHealthResults):]
	for i := range h.Log {
		h.Log[i].Output = h.Log[i].Output[:min(len(h.Log[i].Output), network.MaxHealthOutput)]
	}
	s, c, err := d.lockContainer(ref)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	if c.Status != network.Running || c.Pid != pid {
		return nil
	}
	before := network.HealthStarting
	if old := s.health.Swap(&h); old != nil {
		before = old.Status
	}
	if h.Status != before {
		d.containerEvent("health_status: "+string(h.Status), c, nil)
	}
	return nil
}

// Health is how a container with a health check is; nil for all others, and for those that do not run.
func (d *Daemon) Health(c *network.Container) *network.Health {
	if c.Health.Command == "" || c.Status != network.Running {
		return nil
	}
	if h := d.runtime(c.ID).health.Load(); h != nil {
		return h
	}
	return &network.Health{Status: network.HealthStarting}
}
