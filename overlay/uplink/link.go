package uplink

import (
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/overlay/uplink/routers"
	vswitch "github.com/usernet/usernet/switch"
)

// Link is a network's place on a device: one VLAN, or what has no tag. It is the engine's, which closes it with the
// network, if the last use of it does not end before.
type Link struct {
	set    *Set
	device *device
	vlan   uint16
	engine *engine.Network
	name   string                       // the network's, for TakenError
	apart  bool                         // as Config.Apart
	uses   int                          // calls of Join that have not been left; guarded by device.mu
	trunk  *engine.Trunk                // set by the first Join
	port   atomic.Pointer[vswitch.Port] // nil before Serve

	stopped chan struct{}
	ended   atomic.Bool // stopped is closed, or about to be
	stop    sync.Once
	closed  sync.Once
	follow  sync.WaitGroup
}

var _ engine.Link = (*Link)(nil)

// Config is a network's place.
type Config struct {
	Device string
	VLAN   uint16 // 0: frames without a tag
	// Network is the name of the network that joins, for the errors of others.
	Network string
	// Apart has the VLAN reach those attachments of the network alone that are in it (vswitch.PortConfig.VLAN).
	Apart bool
	// Routers is told what the routers of the VLAN announce, each time that it is something else; nil: nobody is. It
	// is called by one goroutine at a time, and the network's end waits for it.
	Routers func(routers.View)
}

// TakenError is for a VLAN of a device on which another network is.
type TakenError struct {
	Device  string
	VLAN    uint16 // 0: frames without a tag
	Network string // the other network
	Apart   bool   // the other network is there only for those of its attachments that are in the VLAN
}

func (e *TakenError) Error() string {
	at := fmt.Sprintf("VLAN %d of uplink %s", e.VLAN, e.Device)
	if e.VLAN == 0 {
		at = "uplink " + e.Device
	}
	if e.Apart {
		return fmt.Sprintf("%s: network %s is on this VLAN, with containers that were connected to it with --vlan %d", at,
			e.Network, e.VLAN)
	}
	return fmt.Sprintf("%s: another network, %s, is on it", at, e.Network)
}

// Join connects a network that runs to a device, until it has been left as often as it was joined, or the network
// ends. leave may be called after that too, and again; it waits for nothing.
func (s *Set) Join(cfg Config, e *engine.Network) (leave func(), err error) {
	d, err := s.use(cfg.Device)
	if err != nil {
		return nil, err
	}
	l := &Link{set: s, device: d, vlan: cfg.VLAN, engine: e, name: cfg.Network, apart: cfg.Apart, uses: 1,
		stopped: make(chan struct{})}
	if have := d.addLink(l); have != nil {
		s.release(d)
		if have.engine == e {
			return sync.OnceFunc(have.leave), nil
		}
		return nil, &TakenError{Device: cfg.Device, VLAN: cfg.VLAN, Network: have.name, Apart: have.apart}
	}
	mac := net.HardwareAddr(make([]byte, 6)) // a port has one; frames with it come from nobody
	_, _ = rand.Read(mac)
	mac[0] = mac[0]&^1 | 2
	name := "uplink " + cfg.Device
	if cfg.VLAN != 0 {
		name = fmt.Sprintf("%s.%d", name, cfg.VLAN)
	}
	port := vswitch.PortConfig{Name: name, MAC: mac, Role: vswitch.Uplink}
	if cfg.Apart {
		port.VLAN = cfg.VLAN
	}
	if l.trunk, err = e.AttachTrunk(port, l); err != nil {
		_ = l.Close()
		return nil, err
	}
	if cfg.Routers != nil {
		l.follow.Go(func() { l.followRouters(cfg.Routers) })
	}
	return sync.OnceFunc(l.leave), nil
}

// leave ends one use, and with the last one the link: no frame passes from then on, and another network may join. What
// waits goes on in the background, since Config.Routers may need what the caller has locked.
func (l *Link) leave() {
	if l.device.leaveLink(l) {
		l.Stop()
		l.set.ends.Go(l.trunk.Detach)
	}
}

// WriteFrame implements vswitch.Device.
func (l *Link) WriteFrame(f *vswitch.Frame) error {
	if l.ended.Load() {
		return net.ErrClosed
	}
	return l.device.write(l.vlan, f)
}

// Serve implements engine.Link.
func (l *Link) Serve(p *vswitch.Port) error {
	l.port.Store(p)
	<-l.stopped
	return net.ErrClosed
}

// Stop implements engine.Link. A frame that is being received then finds a port that is closed.
func (l *Link) Stop() {
	l.stop.Do(func() {
		l.ended.Store(true)
		l.device.removeLink(l)
		close(l.stopped)
	})
}

// Close implements engine.Link.
func (l *Link) Close() error {
	l.Stop()
	l.follow.Wait()
	l.closed.Do(func() { l.set.release(l.device) })
	return nil
}
