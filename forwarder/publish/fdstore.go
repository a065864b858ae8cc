package publish

import (
	"fmt"
	"strings"

	"github.com/usernet/usernet/handover"
)

// SetFDStore has k store copies of the sockets of all ports that are published from now on, for the daemon that comes
// after this one; nil ends that, and what is stored stays so.
func (t *Table) SetFDStore(k handover.Sink) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fdStore = k
}

func (t *Table) store(p *Port, fd int) {
	if k := t.storeOf(p.key()); k != nil {
		k.Put(p.key().id(p.options.Dual), fd)
	}
}

func (t *Table) unstore(p *Port) {
	if k := t.storeOf(p.key()); k != nil {
		k.Remove(p.key().id(p.options.Dual))
	}
}

// storeOf is where a port's socket is stored: nowhere where it was inherited, as the service manager has it.
func (t *Table) storeOf(k key) handover.Sink {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.inherited[k]; ok {
		return nil
	}
	return t.fdStore
}

// id names a port's socket. A colon may not be in it (sd_pid_notify_with_fds(3), FDNAME).
func (k key) id(dual bool) handover.ID {
	name := fmt.Sprintf("%s-%s-%d", k.proto, strings.ReplaceAll(k.host.Addr().String(), ":", "."), k.host.Port())
	if dual {
		name += "-dual"
	}
	if k.ifc != "" {
		name += "-" + k.ifc
	}
	return handover.ID{Kind: handover.Published, Name: name}
}
