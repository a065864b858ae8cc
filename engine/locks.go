package engine

import "github.com/usernet/usernet/internal/watchdog"

// Locks are those of the network and of all that it consists of, for a watchdog. None is held while something is waited
// for.
func (n *Network) Locks() []watchdog.Lock {
	locks := []watchdog.Lock{watchdog.RWMutex("network", &n.attached.RWMutex, 0)}
	locks = append(locks, n.sw.Locks()...)
	locks = append(locks, n.gw.Locks()...)
	locks = append(locks, n.fwd.Locks()...)
	for i := range locks {
		locks[i] = locks[i].Prefixed("network " + n.cfg.Name + ": ")
	}
	return locks
}
