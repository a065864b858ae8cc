package forwarder

import (
	"fmt"
	"strings"
)

// Keeper keeps copies of the sockets of published ports beyond the end of this process, for the daemon that comes after it:
// the service manager's file descriptor store (sd_pid_notify_with_fds(3), FDSTORE=1). Its methods may be called by many
// goroutines at once.
type Keeper interface {
	// Keep keeps a copy of fd.
	Keep(name string, fd int)
	// Drop forgets what was kept under a name.
	Drop(name string)
}

// KeptPrefix is what the names of kept sockets begin with.
const KeptPrefix = "usernet-published-"

// KeepIn has k keep the sockets of all ports that are published from now on; nil ends that, and what is kept stays so.
func (s *Shared) KeepIn(k Keeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeper = k
}

func (s *Shared) keep(p *published, fd int) {
	if k := s.keeperOf(p.key()); k != nil {
		k.Keep(p.key().kept(p.dual), fd)
	}
}

func (s *Shared) unkeep(p *published) {
	if k := s.keeperOf(p.key()); k != nil {
		k.Drop(p.key().kept(p.dual))
	}
}

// keeperOf is who keeps a port's socket: nobody does where it was inherited, as the service manager has it.
func (s *Shared) keeperOf(k portKey) Keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.inherited[k]; ok {
		return nil
	}
	return s.keeper
}

// kept is the name under which a port's socket is kept. A colon may not be in it (sd_pid_notify_with_fds(3), FDNAME).
func (k portKey) kept(dual bool) string {
	name := fmt.Sprintf("%s%s-%s-%d", KeptPrefix, k.proto, strings.ReplaceAll(k.host.Addr().String(), ":", "."), k.host.Port())
	if dual {
		name += "-dual"
	}
	return name
}
