package network

import (
	"cmp"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
)

// HealthStatus is what a container's health check says of it.
type HealthStatus string

// Docker's words; a container without a check has none ("").
const (
	HealthStarting  HealthStatus = "starting"
	HealthHealthy   HealthStatus = "healthy"
	HealthUnhealthy HealthStatus = "unhealthy"
)

// HealthCheck is a command that runs in a container again and again, and by its exit status says how the container is.
type HealthCheck struct {
	Command       string        `json:"command,omitempty"` // for /bin/sh -c; "": there is no check
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	Retries       int           `json:"retries,omitempty"`        // so many failures in a row are unhealthy
	StartPeriod   time.Duration `json:"start_period,omitempty"`   // failures do not count so long after the start
	StartInterval time.Duration `json:"start_interval,omitempty"` // instead of Interval in that time
}

// Docker's values where none are given.
const (
	defaultHealthInterval = 30 * time.Second
	defaultHealthTimeout  = 30 * time.Second
	defaultStartInterval  = 5 * time.Second
	defaultHealthRetries  = 3
)

// MinHealthTime is the shortest time that a check may have, as in Docker.
const MinHealthTime = time.Millisecond

// WithDefaults is h with values for those that were not given.
func (h HealthCheck) WithDefaults() HealthCheck {
	h.Interval = cmp.Or(h.Interval, defaultHealthInterval)
	h.Timeout = cmp.Or(h.Timeout, defaultHealthTimeout)
	h.StartInterval = cmp.Or(h.StartInterval, defaultStartInterval)
	h.Retries = cmp.Or(h.Retries, defaultHealthRetries)
	return h
}

// Check refuses times that are none, in Docker's words.
func (h HealthCheck) Check() error {
	for _, t := range []struct {
		name string
		d    time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod},
		{"StartInterval", h.StartInterval}} {
		if t.d != 0 && t.d < MinHealthTime {
			return errdefs.Invalid("%s in Healthcheck cannot be less than %s", t.name, MinHealthTime)
		}
	}
	if h.Retries < 0 {
		return errdefs.Invalid("Retries in Healthcheck cannot be negative")
	}
	return nil
}

// HealthResult is one run of a check.
type HealthResult struct {
	Start, End time.Time
	ExitCode   int // 0 is healthy; -1: it took too long, or could not be run
	Output     string
}

// Bounds of what is kept of a check, as in Docker: results, and bytes of one's output.
const (
	KeptHealthResults = 5
	MaxHealthOutput   = 4096
)

// Health is how a container is.
type Health struct {
	Status        HealthStatus
	FailingStreak int
	Log           []HealthResult // the last few, the oldest first
}

// After is h after one more run of a check, in a container that was started at a time.
func (h Health) After(check HealthCheck, started time.Time, r HealthResult) Health {
	log := append(append([]HealthResult(nil), h.Log...), r)
	h.Log = log[max(0, len(log)-KeptHealthResults):]
	switch {
	case r.ExitCode == 0:
		h.Status, h.FailingStreak = HealthHealthy, 0
	case h.Status == HealthStarting && r.Start.Sub(started) < check.StartPeriod:
	default:
		h.FailingStreak++
		if h.FailingStreak >= check.Retries {
			h.Status = HealthUnhealthy
		}
	}
	return h
}

// Wait is how long it takes to the next run of a check.
func (h Health) Wait(check HealthCheck, started, now time.Time) time.Duration {
	if h.Status == HealthStarting && now.Sub(started) < check.StartPeriod {
		return min(check.StartInterval, check.Interval)
	}
	return check.Interval
}
