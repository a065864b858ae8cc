package cluster

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/mesh"
	"github.com/usernet/usernet/overlay/table"
)

// While the store is away, a host tells the others of its own new containers itself: each record in one sealed message,
// and all of them again and again, since a message may be lost and a host may come later.
const (
	tellPeriod   = 500 * time.Millisecond
	tellAgain    = 5 * time.Second
	tellMessages = 2048 // in each period, to all hosts together
	heardQueue   = 512  // messages of others that wait
)

// toldRow is a row as a host tells it; the owner is the host.
type toldRow struct {
	Key         string          `json:"key"`
	Value       json.RawMessage `json:"value,omitempty"`
	Incarnation uint64          `json:"incarnation"`
	Version     uint64          `json:"version"`
	Claimed     int64           `json:"claimed,omitempty"`
	Deleted     bool            `json:"deleted,omitempty"`
}

// heard is a message of another host.
type heard struct {
	from overlay.HostID
	row  []byte
}

// hear takes a message of another host, which WireGuard has authenticated. It does not wait.
func (c *Cluster) hear(from overlay.HostID, m []byte) {
	if mesh.IsMessage(m) {
		if p := c.paths.Load(); p != nil {
			p.Receive(from, m)
		}
		return
	}
	select {
	case c.heard <- heard{from, slices.Clone(m)}:
	default: // it is told again
	}
}

// takeHeard brings what others tell into the table, until the cluster is closed.
func (c *Cluster) takeHeard() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case h := <-c.heard:
			var r toldRow
			err := json.Unmarshal(h.row, &r)
			if err == nil {
				err = c.Table().Hear(h.from, table.Row{
					Key: r.Key, Value: r.Value, Owner: h.from,
					Incarnation: r.Incarnation, Version: r.Version, Claimed: r.Claimed, Deleted: r.Deleted,
				})
			}
			if err != nil {
				c.log.Debug("what a host says is not used", "host", h.from, "error", err)
			}
		}
	}
}

// teller is what was told while the store is away.
type teller struct {
	told map[string]uint64 // versions, by key
	all  time.Time         // when everything was begun to be told last
}

// tellOthers tells what the store does not have, until the cluster is closed.
func (c *Cluster) tellOthers() {
	ticker := time.NewTicker(tellPeriod)
	defer ticker.Stop()
	var s teller
	for {
		select {
		case <-c.ctx.Done():
			return
		case now := <-ticker.C:
			c.mu.Lock()
			t, f := c.mu.table, c.mu.fabric
			c.mu.Unlock()
			s.tell(f, t.Unsent(), now)
		}
	}
}

// tell sends the rows that were not sent yet, and all of them when it is time.
func (s *teller) tell(f *fabric.Fabric, rows []table.Row, now time.Time) {
	if len(rows) == 0 {
		s.told = nil
		return
	}
	if s.told == nil || now.Sub(s.all) >= tellAgain && len(s.told) >= len(rows) {
		s.told, s.all = map[string]uint64{}, now
	}
	for budget := tellMessages; len(rows) > 0 && budget > 0; rows = rows[1:] {
		r := rows[0]
		if v, is := s.told[r.Key]; is && v == r.Version {
			continue
		}
		m, err := json.Marshal(toldRow{r.Key, r.Value, r.Incarnation, r.Version, r.Claimed, r.Deleted})
		if err != nil || len(m) > fabric.MaxTold {
			s.told[r.Key] = r.Version // it waits for the store
			continue
		}
		budget -= max(1, f.Tell(m))
		s.told[r.Key] = r.Version
	}
}
