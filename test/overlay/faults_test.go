package overlay

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStoreAway kills the store under traffic: what runs goes on, containers start and are reached from other hosts,
// a new network is refused with the reason, and all heals when the store is back.
func TestStoreAway(t *testing.T) {
	eachServer(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 3)
		id := w.hosts[1].ok("network", "create", "-d", "overlay", "ov")
		w.each(func(h *host) { h.seesNetwork("ov", id) })
		w.hosts[0].idle("t1", "--network", "ov")
		w.hosts[1].idle("t2", "--network", "ov")
		w.hosts[0].pings("t1", "t2")
		w.kill()
		for range 5 {
			if err := w.hosts[0].ping("t1", "t2"); err != nil {
				t.Errorf("while the store is away: %v", err)
			}
		}
		if r := w.hosts[0].fails("cannot be reached", "network", "create", "-d", "overlay",
			"other"); r.took > 10*time.Second {
			t.Errorf("the refusal took %v", r.took)
		}
		w.hosts[0].ok("network", "create", "local1") // local networks do not wait
		w.hosts[1].idle("t4", "--network", "ov")     // from the host's own block
		w.hosts[1].pings("t4", "t2")
		w.hosts[0].pings("t1", "t4") // other hosts hear of it by its own
		w.hosts[1].pings("t4", "t1")
		w.hosts[0].seesContainers("ov", "t1", "t2", "t4")
		w.hosts[0].ok("rm", "-f", "t1")
		w.hosts[1].seesContainers("ov", "t2", "t4") // and that it is gone
		w.restart()
		w.hosts[2].idle("t5", "--network", "ov")
		w.hosts[2].pings("t5", "t4")
		w.each(func(h *host) { h.seesContainers("ov", "t2", "t4", "t5") })
		w.hosts[0].creates("other")
	})
}

// creates makes a network as soon as the host reaches the store again.
func (h *host) creates(network string) (id string) {
	h.t.Helper()
	eventually(h.t, func() error {
		r := h.try("network", "create", "-d", "overlay", network)
		id = strings.TrimSpace(r.stdout)
		if r.code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	return id
}

// TestHostKilled kills a daemon and starts it again: its containers are reached again, under their addresses.
func TestHostKilled(t *testing.T) {
	eachStore(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 2)
		id := w.hosts[1].ok("network", "create", "-d", "overlay", "ov")
		w.each(func(h *host) { h.seesNetwork("ov", id) })
		w.hosts[0].idle("t1", "--network", "ov")
		w.hosts[1].idle("t2", "--network", "ov")
		w.hosts[0].pings("t1", "t2")
		before := w.hosts[0].address("t1", "eth0")
		w.hosts[0].stop(syscall.SIGKILL)
		w.hosts[0].again()
		w.hosts[1].pings("t2", "t1")
		w.hosts[0].pings("t1", "t2")
		if after := w.hosts[0].address("t1", "eth0"); after != before {
			t.Errorf("t1 had %s, and has %s", before, after)
		}
	})
}

// partitionTime is how long hosts are cut off: longer than AliveTTL, the stores' sessions and memberlist's suspicion.
const partitionTime = 70 * time.Second

// TestPartition cuts a host off for more than a minute. Both sides go on, names stay, and all is as before when the
// cable is back.
func TestPartition(t *testing.T) {
	eachStore(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 3)
		id := w.hosts[1].ok("network", "create", "-d", "overlay", "ov")
		w.each(func(h *host) { h.seesNetwork("ov", id) })
		for i, h := range w.hosts {
			h.idle(fmt.Sprintf("t%d", i+1), "--network", "ov")
		}
		w.hosts[0].pings("t1", "t3")
		w.hosts[2].pings("t3", "t2")
		w.hosts[2].cut()
		began := time.Now()
		w.hosts[0].pings("t1", "t2")
		w.hosts[2].idle("t6", "--network", "ov")
		w.hosts[2].pings("t3", "t6")
		within(t, 2*partitionTime, func() error {
			if left := partitionTime - time.Since(began); left > 0 {
				return fmt.Errorf("%v of the partition are left", left)
			}
			return nil
		})
		if r := w.hosts[0].exec("t1", "nslookup", "t3"); !strings.Contains(r.stdout, "Address") {
			t.Errorf("the name of a container that is cut off is gone: %v", r)
		}
		w.hosts[2].plug()
		w.hosts[0].pings("t1", "t3")
		w.hosts[0].pings("t1", "t6")
		w.hosts[2].pings("t6", "t2")
		w.each(func(h *host) { h.seesContainers("ov", "t1", "t2", "t3", "t6") })
	})
}

// TestRestart ends a daemon and starts it again, and then has another one take its place: its networks reach other
// hosts as before.
func TestRestart(t *testing.T) {
	eachStore(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 2)
		a, b := w.hosts[0], w.hosts[1]
		id := b.ok("network", "create", "-d", "overlay", "ov")
		a.seesNetwork("ov", id)
		a.idle("t1", "--network", "ov")
		b.idle("t2", "--network", "ov")
		a.pings("t1", "t2")
		if code := a.stop(syscall.SIGTERM); code != 0 {
			t.Errorf("the daemon ended with status %d", code)
		}
		a.again()
		a.pings("t1", "t2")
		b.pings("t2", "t1")
		old, flags := a.ended, a.flags
		a.start(append([]string{"--takeover"}, flags...)...)
		select {
		case <-old:
		case <-time.After(patience):
			t.Error("the daemon whose place was taken did not end")
		}
		a.answers()
		a.pings("t1", "t2")
		b.pings("t2", "t1")
	})
}
