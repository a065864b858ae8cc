package uplink

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/usernet/usernet/overlay/uplink/dhcp"
)

// leaseKey is an owner's address of one family.
type leaseKey struct {
	owner string
	ipv6  bool
}

// Set is the devices of a daemon that are in use, and the leases on them. Make it with NewSet, end it with Close. Its
// methods may be called at the same time.
type Set struct {
	log  *slog.Logger
	open func(name string) (*os.File, error)

	ends sync.WaitGroup // of links that were left

	mu      sync.Mutex // guards the rest
	devices map[string]*device
	leases  map[leaseKey]*lease
}

// lease is an address that a DHCP server gave to an owner.
type lease struct {
	device *device
	key    clientKey
	client *dhcp.Client
}

// NewSet returns an empty Set. open opens a macvtap that this process may not open itself (Landlock), as OpenMacvtap
// does; nil: such ones stay closed.
func NewSet(log *slog.Logger, open func(name string) (*os.File, error)) *Set {
	return &Set{log: log, open: open, devices: map[string]*device{}, leases: map[leaseKey]*lease{}}
}

// use returns a device for one use more.
func (s *Set) use(name string) (*device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[name]
	if d == nil {
		var err error
		if d, err = openDevice(name, s.log, s.open); err != nil {
			return nil, err
		}
		s.devices[name] = d
	}
	d.uses++
	return d, nil
}

// release ends one use, and with the last one the device.
func (s *Set) release(d *device) {
	s.mu.Lock()
	d.uses--
	last := d.uses == 0
	if last {
		delete(s.devices, d.name)
	}
	s.mu.Unlock()
	if last {
		d.close()
	}
}

// Probe opens a device and closes it again, unless it is in use.
func (s *Set) Probe(name string) error {
	d, err := s.use(name)
	if err != nil {
		return err
	}
	defer s.release(d)
	if d.open.Load() == nil {
		return fmt.Errorf("uplink %s: another process has it open, or it is gone", name)
	}
	return nil
}

// Discover asks which network is on a device, without taking an address.
func (s *Set) Discover(ctx context.Context, at Config, mac net.HardwareAddr) (dhcp.Lease, error) {
	var offer dhcp.Lease
	err := s.client(at, dhcp.Config{MAC: mac}, func(l *lease) (err error) {
		defer s.end(l, false)
		offer, err = l.client.Discover(ctx)
		return err
	})
	return offer, err
}

// Lease takes an address for an owner, and renews it until Release.
func (s *Set) Lease(ctx context.Context, owner string, at Config, cfg dhcp.Config) (dhcp.Lease, error) {
	var got dhcp.Lease
	err := s.client(at, cfg, func(l *lease) (err error) {
		if got, err = l.client.Acquire(ctx); err != nil {
			s.end(l, false)
			return err
		}
		s.keep(leaseKey{owner, cfg.IPv6}, l)
		return nil
	})
	return got, err
}

// Resume renews an address that an owner has from an earlier process.
func (s *Set) Resume(owner string, at Config, cfg dhcp.Config) error {
	return s.client(at, cfg, func(l *lease) error {
		l.client.Resume()
		s.keep(leaseKey{owner, cfg.IPv6}, l)
		return nil
	})
}

// client makes a client on a device; do decides what becomes of it.
func (s *Set) client(at Config, cfg dhcp.Config, do func(*lease) error) error {
	d, err := s.use(at.Device)
	if err != nil {
		return err
	}
	l := &lease{device: d, key: clientKey{at.VLAN, [6]byte(cfg.MAC), cfg.IPv6}}
	cfg.Logger = d.log
	cfg.Send = func(dst net.HardwareAddr, packet []byte) error { return d.send(at.VLAN, cfg.MAC, dst, packet) }
	cfg.Taken = func(ctx context.Context, a netip.Addr) (net.HardwareAddr, error) {
		return d.taken(ctx, at.VLAN, cfg.MAC, a)
	}
	l.client = dhcp.New(cfg)
	d.setClient(l.key, l.client)
	return do(l)
}

// keep notes an owner's lease. One that the owner had goes.
func (s *Set) keep(k leaseKey, l *lease) {
	s.mu.Lock()
	old := s.leases[k]
	s.leases[k] = l
	s.mu.Unlock()
	if old != nil {
		s.end(old, false)
	}
}

// NameServers are those that DHCP servers give to an owner with its addresses.
func (s *Set) NameServers(owner string) (list []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ipv6 := range []bool{false, true} {
		if l := s.leases[leaseKey{owner, ipv6}]; l != nil {
			list = append(list, l.client.NameServers()...)
		}
	}
	return list
}

// Release gives the address of an owner back, in the background: nobody waits for a device.
func (s *Set) Release(owner string, ipv6 bool) {
	k := leaseKey{owner, ipv6}
	s.mu.Lock()
	l := s.leases[k]
	delete(s.leases, k)
	s.mu.Unlock()
	if l != nil {
		s.end(l, true)
	}
}

// end ends a client.
func (s *Set) end(l *lease, release bool) {
	l.client.Close(release)
	if (*l.device.clients.Load())[l.key] == l.client {
		l.device.setClient(l.key, nil)
	}
	s.release(l.device)
}

// Close ends all leases here without giving them back: their owners go on. It waits for links that were left.
func (s *Set) Close() {
	s.mu.Lock()
	all := s.leases
	s.leases = map[leaseKey]*lease{}
	s.mu.Unlock()
	for _, l := range all {
		s.end(l, false)
	}
	s.ends.Wait()
}
