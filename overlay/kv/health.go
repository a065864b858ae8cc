package kv

import (
	"fmt"
	"sync"
	"time"

	"github.com/usernet/usernet/overlay/table"
)

// healthState is what Health tells.
type healthState struct {
	mu        sync.Mutex // guards what follows
	connected bool
	since     time.Time // when connected became what it is
	err       error     // the last that there was
	foreign   int       // keys of the last list, and since, whose values are not usernet's
	example   error     // one of them
	double    bool      // another daemon has this host's id
}

// reached notes an answer.
func (h *healthState) reached() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.connected {
		h.connected, h.since = true, time.Now()
	}
}

// failed notes that there was none, or a refusal.
func (h *healthState) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	if h.connected {
		h.connected, h.since = false, time.Now()
	}
}

// unreadable notes a key that is none of usernet's.
func (h *healthState) unreadable(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.foreign++
	h.example = err
}

// listed begins a new count of unreadable keys.
func (h *healthState) listed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.foreign, h.example = 0, nil
}

// doubled notes whether another daemon has this host's id.
func (h *healthState) doubled(is bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.double = is
}

// Health implements table.Backend.
func (b *Backend) Health() table.Health {
	h := &b.health
	h.mu.Lock()
	defer h.mu.Unlock()
	health := table.Health{URL: b.config.URL, Connected: h.connected, Since: h.since, Err: h.err}
	if h.foreign > 0 {
		health.Notes = append(
			health.Notes,
			fmt.Sprintf("%d keys are not usernet's and ignored: %v", h.foreign, h.example),
		)
	}
	if h.double {
		health.Notes = append(health.Notes, "a later daemon has this host's id: a state directory was copied")
	}
	return health
}
