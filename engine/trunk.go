package engine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/usernet/usernet/internal/isolate"
	vswitch "github.com/usernet/usernet/switch"
)

// Trunk is a link to other parts of the network, on other machines: behind it are MACs that others have. It ends with
// Detach, or with the network.
type Trunk struct {
	n      *Network
	link   Link
	port   *vswitch.Port
	once   sync.Once
	reader sync.WaitGroup
}

// AttachTrunk connects a link to other parts of the network, which owns it from then on. Where it fails the link stays
// the caller's.
func (n *Network) AttachTrunk(cfg vswitch.PortConfig, link Link) (*Trunk, error) {
	n.attached.Lock()
	defer n.attached.Unlock()
	if n.attached.closed {
		return nil, fmt.Errorf("attaching %s to network %s: %w", cfg.Name, n.cfg.Name, ErrClosed)
	}
	port, err := n.sw.Connect(cfg, link)
	if err != nil {
		return nil, fmt.Errorf("attaching %s to network %s: %w", cfg.Name, n.cfg.Name, err)
	}
	t := &Trunk{n: n, link: link, port: port}
	n.attached.trunks = append(n.attached.trunks, t)
	t.reader.Go(func() {
		err := isolate.Call(n.log, "reading frames", func() error { return link.Serve(port) }, "trunk", cfg.Name)
		if err != nil && !isolate.IsPanic(err) && !errors.Is(err, net.ErrClosed) {
			n.log.Debug("link ended", "trunk", cfg.Name, "error", err)
		}
	})
	return t, nil
}

// SetStatic says which MACs are behind the trunk, in the place of what was said before.
func (t *Trunk) SetStatic(macs []net.HardwareAddr) { t.n.sw.SetStatic(t.port, macs) }

// Detach takes the trunk off the network and closes its link. Detaching again does nothing.
func (t *Trunk) Detach() {
	t.once.Do(func() {
		_ = errors.Join(t.port.Close(), t.link.Close()) // there is nobody to tell
		t.n.attached.Lock()
		t.n.attached.trunks = slices.DeleteFunc(t.n.attached.trunks, func(o *Trunk) bool { return o == t })
		t.n.attached.Unlock()
		t.reader.Wait()
	})
}

// Find returns the MAC of the attachment of this machine that has an address. It neither waits nor allocates.
func (n *Network) Find(a netip.Addr) (mac [6]byte, ok bool) { return n.sw.Find(a) }

// GatewayMAC is that of the network's gateway.
func (n *Network) GatewayMAC() net.HardwareAddr { return n.cfg.MAC }
