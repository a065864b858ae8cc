package gossip

import (
	"bytes"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// delegate is what memberlist calls. It does not block.
type delegate Backend

// parseMember reads a member's name.
func parseMember(name string) (overlay.HostID, uint64, bool) {
	id, hex, _ := strings.Cut(name, "-")
	host, err := overlay.ParseHostID(id)
	incarnation, err2 := strconv.ParseUint(hex, 16, 64)
	return host, incarnation, err == nil && err2 == nil
}

// NodeMeta implements memberlist.Delegate.
func (d *delegate) NodeMeta(int) []byte { return nil }

// NotifyMsg implements memberlist.Delegate.
func (d *delegate) NotifyMsg(message []byte) {
	b := (*Backend)(d)
	r := &reader{b: message}
	kind := r.bytes(1)
	if kind == nil {
		return
	}
	switch kind[0] {
	case msgRows:
		b.rowsCame(r)
	case msgSummary:
		b.summaryCame(r)
	case msgNeed:
		b.needCame(r)
	case msgDigest:
		b.compareDigest(r.b, true)
	default:
		b.malformed()
	}
}

// GetBroadcasts implements memberlist.Delegate.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.queue.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte { return (*Backend)(d).digest() }

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState(buf []byte, _ bool) { (*Backend)(d).compareDigest(buf, false) }

// NotifyJoin implements memberlist.EventDelegate.
func (d *delegate) NotifyJoin(n *memberlist.Node) {
	host, incarnation, ok := parseMember(n.Name)
	if !ok {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.members[n.Name] = n
	d.members.Store(int64(len(d.mu.members)))
	if len(d.mu.members) == 2 {
		d.mu.joined = time.Now()
	}
	lives := append(d.mu.alive[host], incarnation)
	slices.Sort(lives)
	d.mu.alive[host] = slices.Compact(lives)
	(*Backend)(d).changed(overlay.AliveKey(host))
}

// NotifyLeave implements memberlist.EventDelegate.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	host, incarnation, ok := parseMember(n.Name)
	if !ok {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.members, n.Name)
	d.members.Store(int64(len(d.mu.members)))
	if len(d.mu.members) == 1 {
		d.mu.joined = time.Now()
	}
	lives := slices.DeleteFunc(d.mu.alive[host], func(i uint64) bool { return i == incarnation })
	if d.mu.alive[host] = lives; len(lives) == 0 {
		delete(d.mu.alive, host)
	}
	(*Backend)(d).changed(overlay.AliveKey(host))
}

// NotifyUpdate implements memberlist.EventDelegate.
func (d *delegate) NotifyUpdate(n *memberlist.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, is := d.mu.members[n.Name]; is {
		d.mu.members[n.Name] = n
	}
}

func (b *Backend) numMembers() int { return max(int(b.members.Load()), 1) }

func (b *Backend) member(name string) *memberlist.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.members[name]
}

// aliveRow is a host's alive/ row: of its latest life. The caller holds mu.
func (b *Backend) aliveRow(host overlay.HostID) (table.Row, bool) {
	lives := b.mu.alive[host]
	if len(lives) == 0 {
		return table.Row{Key: overlay.AliveKey(host), Owner: host, Deleted: true}, false
	}
	last := lives[len(lives)-1]
	return table.Row{Key: overlay.AliveKey(host), Owner: host, Incarnation: last, Version: last}, true
}

// lines is memberlist's log. What says that keys differ is counted, and all goes to the daemon's log as details.
type lines struct {
	log      *slog.Logger
	wrongKey atomic.Int64
}

// Write implements io.Writer. memberlist writes whole lines.
func (l *lines) Write(line []byte) (int, error) {
	// The texts of memberlist where a message cannot be opened (security.go, net.go).
	for _, text := range []string{
		"could decrypt the message",
		"Decrypt packet failed",
		"encryption is not configured",
		"not encrypted",
	} {
		if bytes.Contains(bytes.ToLower(line), []byte(strings.ToLower(text))) {
			if l.wrongKey.Add(1) == 1 {
				l.log.Warn("messages sealed with another key are dropped: is --cluster-key the same file on all hosts?")
			}
			break
		}
	}
	l.log.Debug("cluster: " + string(bytes.TrimSpace(line)))
	return len(line), nil
}
