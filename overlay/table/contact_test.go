package table_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/table"
	"github.com/usernet/usernet/overlay/table/tabletest"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.b.String()), "\n")
}

// TestALostContactIsLoggedOnceAMinute has a backend that fails with another text each time, as those that name the port
// of a connection: the state has the last one, and the log the first of each minute.
func TestALostContactIsLoggedOnceAMinute(t *testing.T) {
	hub := tabletest.NewHub()
	c := &clock{now: time.Unix(1000, 0)}
	var log lockedBuffer
	tab, err := table.Open(table.Config{
		Host: hostA, Incarnation: 1, Store: network.NewMemoryStore(), Backend: hub.Join(hostA, 1), Clock: c.read,
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	tab.Start()
	t.Cleanup(func() { _ = tab.Close() })
	n := &node{Table: tab, t: t, clock: c}
	n.until("the first list", func() bool { return n.Status().Synced })
	n.TakeChanges()
	away := func(port int) {
		hub.Away(hostA, fmt.Errorf("read 192.0.2.1:%d: connection reset", port))
		n.until("the table has heard of it", func() bool { return n.TakeChanges().Health })
	}
	for port := range 10 {
		away(40000 + port)
	}
	c.move(time.Minute)
	away(50000)
	var logged []string
	for _, line := range log.lines() {
		if strings.Contains(line, "not kept up to date") {
			logged = append(logged, line)
		}
	}
	if len(logged) != 2 || !strings.Contains(logged[0], ":40000") || !strings.Contains(logged[1], ":50000") {
		t.Errorf("logged %d times:\n%s", len(logged), strings.Join(logged, "\n"))
	}
}
