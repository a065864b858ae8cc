package table

// Changes are what became different since they were asked for last.
type Changes struct {
	Networks  map[string]bool // ids of networks that came, changed or went
	Endpoints map[string]bool // ids of networks whose endpoints did
	Hosts     bool            // hosts came, went, changed, are down or up
	Routes    bool            // subnets behind hosts did
	Lost      []Conflict      // claims of this host that others had before
	Duplicate *Row            // the host row of another daemon with this host's id that was there before
	Usurped   *Row            // the same of a daemon that came later; it will take another id
	Synced    bool            // a whole list came
	Health    bool            // the backend was lost, or is back
}

// Conflict is a key that two hosts have claimed without knowledge of each other.
type Conflict struct {
	Own, Other Row
}

func newChanges() Changes {
	return Changes{Networks: map[string]bool{}, Endpoints: map[string]bool{}}
}

// Changed has something to receive when TakeChanges has something to return.
func (t *Table) Changed() <-chan struct{} { return t.changed }

// TakeChanges returns what changed since it was called last.
func (t *Table) TakeChanges() Changes {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.mu.pending
	t.mu.pending = newChanges()
	return c
}

// TellHosts has TakeChanges say that hosts changed: for a caller that uses others of them than before.
func (t *Table) TellHosts() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.pending.Hosts = true
	t.tell()
}

// tell has Changed say something. The caller holds mu.
func (t *Table) tell() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}
