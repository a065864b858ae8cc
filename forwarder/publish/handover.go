package publish

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/handover"
	"github.com/usernet/usernet/internal/ports"
	"github.com/usernet/usernet/internal/sockio"
)

// adoptedKey is what an adopted socket is for.
type adoptedKey struct {
	key
	dual bool
}

// HandOver puts copies of the sockets of all published ports into set, and of those that were inherited, for the daemon
// that takes this one's place. While a copy is open, no connection to its port is refused.
func (t *Table) HandOver(set *handover.Set) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	put := func(id handover.ID, fd int) error {
		c, err := sockio.DupFD(fd)
		if err == nil {
			set.Put(id, c)
		}
		return err
	}
	var errs []error
	for _, p := range t.ports {
		errs = append(errs, p.sock.Use(func(fd int) error { return put(p.key().id(p.options.Dual), fd) }))
	}
	seen := map[int]bool{} // a socket for both families stands under two keys
	for k, fd := range t.inherited {
		if seen[fd] {
			continue
		}
		seen[fd] = true
		id := k.id(false)
		id.Kind = handover.Inherited
		errs = append(errs, put(id, fd))
	}
	return errors.Join(errs...)
}

// Adopt stores the socket of a port that was published by a daemon whose place this one takes, until the port is
// published again or CloseAdopted. It owns fd from here.
func (t *Table) Adopt(fd int) error {
	at := sockio.LocalAddr(fd)
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || !at.IsValid() || at.Port() == 0 {
		return errors.Join(fmt.Errorf("descriptor %d is not the socket of a port", fd), err, unix.Close(fd))
	}
	k := adoptedKey{key: key{host: at, proto: ports.TCP}}
	if kind == unix.SOCK_DGRAM {
		k.proto = ports.UDP
	}
	if at.Addr() == netip.IPv6Unspecified() {
		k.dual = sockio.IsDual(fd)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.adopted[k]; ok {
		return errors.Join(fmt.Errorf("two sockets for %s", at), unix.Close(old), unix.Close(fd))
	}
	t.adopted[k] = fd
	return nil
}

// CloseAdopted closes what was adopted and is published no more.
func (t *Table) CloseAdopted() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, fd := range t.adopted {
		_ = unix.Close(fd)
		delete(t.adopted, k)
		if t.fdStore != nil {
			t.fdStore.Remove(k.id(k.dual))
		}
	}
}

// takeAdopted returns the socket that was adopted for a port.
func (t *Table) takeAdopted(k key, dual bool) (int, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := adoptedKey{k, dual}
	fd, ok := t.adopted[a]
	delete(t.adopted, a)
	return fd, ok
}
