package uplink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/overlay/uplink/dhcp"
	"github.com/usernet/usernet/overlay/uplink/routers"
	vswitch "github.com/usernet/usernet/switch"
	"github.com/usernet/usernet/switch/tap"
)

// lookEvery is how often a device is looked at, whether it is still there, or there again.
const lookEvery = time.Second

// device is an uplink that is open, for all networks and leases on it.
type device struct {
	name string
	log  *slog.Logger
	uses int                                 // of networks and leases; guarded by Set.mu
	ask  func(name string) (*os.File, error) // as Set.open

	open atomic.Pointer[tap.Device] // nil while the device is gone

	mu      sync.Mutex // guards changes of the maps, which are copied
	links   atomic.Pointer[map[uint16]*Link]
	clients atomic.Pointer[map[clientKey]*dhcp.Client]
	tables  atomic.Pointer[map[uint16]*routers.Table] // of VLANs on which somebody wants to know of routers
	badTags atomic.Uint64
	watches watches
	defence defence

	cancel context.CancelFunc
	runs   sync.WaitGroup
}

// clientKey is what a DHCP client's answers are known by.
type clientKey struct {
	vlan uint16
	mac  [6]byte
	ipv6 bool
}

// openDevice opens a device. One that another process has open is waited for: the daemon before may end soon.
func openDevice(name string, log *slog.Logger, ask func(string) (*os.File, error)) (*device, error) {
	d := &device{name: name, log: log.With("uplink", name), ask: ask}
	d.links.Store(&map[uint16]*Link{})
	d.clients.Store(&map[clientKey]*dhcp.Client{})
	d.tables.Store(&map[uint16]*routers.Table{})
	dev, err := d.openNow()
	switch {
	case IsBusy(err):
		d.log.Warn("another process has the uplink open, which is waited for", "error", err)
	case err != nil:
		return nil, err
	default:
		d.open.Store(dev)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	d.runs.Go(func() { d.run(ctx) })
	return d, nil
}

// openNow opens the device as it is now.
func (d *device) openNow() (*tap.Device, error) {
	info, err := Find(d.name)
	if err != nil {
		return nil, fmt.Errorf("uplink %s: %w", d.name, err)
	}
	f, err := info.open()
	if info.Kind == Macvtap && errors.Is(err, unix.EACCES) && info.Usable() == nil { // it is the user's
		f, err = d.openByAnother(&info)
	} else if err != nil {
		err = fmt.Errorf("%w: `usernet uplink check %s` says what to do", err, d.name)
	}
	if err != nil {
		return nil, fmt.Errorf("uplink %s: %w", d.name, err)
	}
	return tap.Open(f, false)
}

// openByAnother opens a macvtap that was made after this process had given up the files that there were not.
func (d *device) openByAnother(info *Info) (f *os.File, err error) {
	err = errors.New("there is no process that opens it for this one")
	if d.ask != nil {
		f, err = d.ask(d.name)
	}
	if err != nil {
		err = fmt.Errorf("it was made after this daemon had given up all files that it did not need, and %s is one: %w: "+
			"`usernet serve --takeover` takes this daemon's place, and connections go on", info.Node(), err)
	}
	return f, err
}

// close ends the device, and waits for its goroutines.
func (d *device) close() {
	d.cancel()
	if dev := d.open.Load(); dev != nil {
		dev.Stop()
	}
	d.runs.Wait()
	if dev := d.open.Swap(nil); dev != nil { // nobody had begun to read it
		_ = dev.Close()
	}
}

// run reads the device until ctx ends, and opens it again where it was gone.
func (d *device) run(ctx context.Context) {
	for ctx.Err() == nil {
		dev := d.open.Load()
		if dev == nil {
			if dev = d.reopen(ctx); dev == nil {
				return
			}
		}
		looking, enough := context.WithCancel(ctx)
		var looks sync.WaitGroup
		looks.Go(func() { stopWhenGone(looking, dev) })
		err := isolate.Call(d.log, "reading frames", func() error { return dev.Frames(d.receive, d.flush) })
		d.open.Store(nil)
		enough()
		looks.Wait()
		_ = dev.Close() // it is gone, or nobody's any more
		if ctx.Err() == nil {
			d.log.Error("the uplink is gone: its networks reach nobody outside until it is there again", "error", err)
		}
	}
}

// stopWhenGone ends the reading of a device that is gone without saying so.
func stopWhenGone(ctx context.Context, dev *tap.Device) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			dev.Stop()
			return
		case <-tick.C:
			if dev.Gone() != nil {
				dev.Stop()
				return
			}
		}
	}
}

// reopen waits until the device is there; nil: until ctx has ended.
func (d *device) reopen(ctx context.Context) *tap.Device {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := ""
	for {
		dev, err := d.openNow()
		if err == nil {
			d.open.Store(dev)
			d.log.Info("the uplink is there again")
			return dev
		}
		if text := err.Error(); text != said { // once for each reason
			d.log.Warn("the uplink cannot be opened", "error", err)
			said = text
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// receive gives a frame to the network of its VLAN, or to the DHCP client that it answers.
func (d *device) receive(f *vswitch.Frame) {
	vlan, ok := untag(f)
	if !ok {
		d.badTags.Add(1)
		return
	}
	l := (*d.links.Load())[vlan]
	if d.control(vlan, l, f) {
		return
	}
	if l != nil {
		if p := l.port.Load(); p != nil {
			p.Receive(f)
		}
	}
}

// control takes note of what concerns the daemon, and is true for what concerns nobody else.
func (d *device) control(vlan uint16, l *Link, f *vswitch.Frame) bool {
	if clients := *d.clients.Load(); len(clients) > 0 {
		if m := dhcp.Parse(f); m != nil {
			if c := clients[clientKey{vlan, m.MAC, m.IsIPv6()}]; c != nil {
				c.Take(m)
				return true
			}
		}
		if target, from, ok := solicited(f); ok {
			d.answer(vlan, clients, target, from, f)
		}
	}
	if c, ok := claimOf(f); ok {
		d.heard(vlan, l, c)
	} else if t := (*d.tables.Load())[vlan]; t != nil {
		if a := routers.Parse(f); a != nil {
			t.Take(a)
		}
	}
	return false
}

// answer answers a DHCPv6 server that looks for a client whose container is not there yet.
func (d *device) answer(
	vlan uint16, clients map[clientKey]*dhcp.Client, target, from netip.Addr, f *vswitch.Frame,
) {
	a := target.As16() // the MAC follows from a link-local address, RFC 4291 appendix A
	mac := [6]byte{a[8] ^ 2, a[9], a[10], a[13], a[14], a[15]}
	if a[11] != 0xff || a[12] != 0xfe || clients[clientKey{vlan, mac, true}] == nil {
		return
	}
	dst := append(net.HardwareAddr(nil), f.Ethernet()[6:macsLen]...)
	_ = d.transmit(vlan, mac[:], advertisement(mac[:], dst, target, from, true)) // it asks again
}

func (d *device) flush() {
	for _, l := range *d.links.Load() {
		if p := l.port.Load(); p != nil {
			p.Flush()
		}
	}
}

// write sends a frame to the outside.
func (d *device) write(vlan uint16, f *vswitch.Frame) error {
	dev := d.open.Load()
	if dev == nil {
		return tap.ErrGone
	}
	if vlan == 0 {
		return dev.WriteFrame(f)
	}
	return writeTagged(dev, vlan, f)
}

// send sends a packet of a DHCP client's.
func (d *device) send(vlan uint16, src, dst net.HardwareAddr, packet []byte) error {
	t := uint16(vswitch.EtherTypeIPv4)
	if packet[0]>>4 == 6 {
		t = vswitch.EtherTypeIPv6
	}
	return d.transmit(vlan, src, wire{t, dst, packet})
}

// transmit sends a packet in a container's name.
func (d *device) transmit(vlan uint16, src net.HardwareAddr, w wire) error {
	var f vswitch.Frame
	eth := f.Ethernet()
	copy(eth, w.dst)
	copy(eth[6:], src)
	binary.BigEndian.PutUint16(eth[macsLen:], w.etherType)
	f.Payload = [][]byte{w.packet}
	if err := d.write(vlan, &f); err != nil {
		return fmt.Errorf("uplink %s: %w", d.name, err)
	}
	return nil
}

// table is what is known of a VLAN's routers, from now on.
func (d *device) table(vlan uint16) *routers.Table {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := (*d.tables.Load())[vlan]; t != nil {
		return t
	}
	next := maps.Clone(*d.tables.Load())
	next[vlan] = new(routers.Table)
	d.tables.Store(&next)
	return next[vlan]
}

// addLink has frames of a VLAN go to a network, unless they go to one, which is returned. If that is the same one, its
// link has one use more.
func (d *device) addLink(l *Link) (have *Link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	have = (*d.links.Load())[l.vlan]
	switch {
	case have == nil:
		next := maps.Clone(*d.links.Load())
		next[l.vlan] = l
		d.links.Store(&next)
	case have.engine == l.engine:
		have.uses++
	}
	return have
}

// leaveLink ends one use of a link, and is true for the last one. Frames go to no network then.
func (d *device) leaveLink(l *Link) (last bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.uses--; l.uses > 0 {
		return false
	}
	d.dropLink(l)
	return true
}

// removeLink has frames go to no network, unless they go to another.
func (d *device) removeLink(l *Link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropLink(l)
}

// dropLink is removeLink for a caller that holds mu.
func (d *device) dropLink(l *Link) {
	if (*d.links.Load())[l.vlan] == l {
		next := maps.Clone(*d.links.Load())
		delete(next, l.vlan)
		d.links.Store(&next)
	}
}

// setClient has answers to a MAC go to a DHCP client; nil: to the network.
func (d *device) setClient(k clientKey, c *dhcp.Client) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := maps.Clone(*d.clients.Load())
	if next[k] = c; c == nil {
		delete(next, k)
	}
	d.clients.Store(&next)
}
