package forwarder

import (
	"fmt"
	"strings"

	"github.com/usernet/usernet/handover"
)

// SetFDStore has k store copies of the sockets of all ports that are published from now on, for the daemon that comes after this one;
// nil ends that, and what is stored stays so.
func (s *Shared) SetFDStore(k handover.Sink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fdStore = k
}

func (s *Shared) store(p *published, fd int) {
	if k := s.storeOf(p.key()); k != nil {
		k.Put(p.key().id(p.options.Dual), fd)
	}
}

func (s *Shared) unstore(p *published) {
	if k := s.storeOf(p.key()); k != nil {
		k.Remove(p.key().id(p.options.Dual))
	}
}

// storeOf is where a port's socket is stored: nowhere where it was inherited, as the service manager has it.
func (s *Shared) storeOf(k portKey) handover.Sink {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.inherited[k]; ok {
		return nil
	}
	return s.fdStore
}

// id names a port's socket. A colon may not be in it (sd_pid_notify_with_fds(3), FDNAME).
func (k portKey) id(dual bool) handover.ID {
	name := fmt.Sprintf("%s-%s-%d", k.proto, strings.ReplaceAll(k.host.Addr().String(), ":", "."), k.host.Port())
	if dual {
		name += "-dual"
	}
	if k.ifc != "" {
		name += "-" + k.ifc
	}
	return handover.ID{Kind: handover.Published, Name: name}
}
