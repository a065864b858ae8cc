package engine

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	vswitch "github.com/usernet/usernet/switch"
)

// captures are those that run on a network.
type captures struct {
	sync.Mutex                            // held while list changes
	list       atomic.Pointer[[]*capture] // nil: none
}

// capture is who is shown frames, and of which attachments.
type capture struct{ wants func(*Attachment) bool }

// Capture shows f the frames of the attachments that wants says, also of those that come later, until stop is called:
// in is true for those that an attachment sends. Meanwhile new TCP connections of these attachments do not bypass their
// links, so that f is shown them whole; those that bypass them already go on so. Neither function may block, or change
// or keep a frame; wants may be asked about an attachment often.
func (n *Network) Capture(
	wants func(*Attachment) bool, f func(a *Attachment, in bool, frame *vswitch.Frame),
) (stop func()) {
	c := &capture{wants}
	n.capturing.change(func(list []*capture) []*capture { return append(list, c) })
	end := n.sw.Mirror(func(p *vswitch.Port, in bool, frame *vswitch.Frame) {
		if a, ok := p.Owner().(*Attachment); ok && wants(a) {
			f(a, in, frame)
		}
	})
	return sync.OnceFunc(func() {
		end()
		n.capturing.change(func(list []*capture) []*capture {
			return slices.DeleteFunc(list, func(each *capture) bool { return each == c })
		})
	})
}

// change stores another list.
func (c *captures) change(f func([]*capture) []*capture) {
	c.Lock()
	defer c.Unlock()
	var list []*capture
	if old := c.list.Load(); old != nil {
		list = slices.Clone(*old)
	}
	if list = f(list); len(list) == 0 {
		c.list.Store(nil)
		return
	}
	c.list.Store(&list)
}

// captured says whether somebody is shown an attachment's frames.
func (n *Network) captured(a *Attachment) bool {
	list := n.capturing.list.Load()
	return list != nil && slices.ContainsFunc(*list, func(c *capture) bool { return c.wants(a) })
}

// Attachments are those that are there now, by name.
func (n *Network) Attachments() []*Attachment {
	n.attached.RLock()
	defer n.attached.RUnlock()
	list := make([]*Attachment, 0, len(n.attached.byID))
	for _, a := range n.attached.byID {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *Attachment) int {
		return cmp.Or(cmp.Compare(a.Name(), b.Name()), cmp.Compare(a.ID(), b.ID()))
	})
	return list
}

// MAC is the attachment's.
func (a *Attachment) MAC() net.HardwareAddr { return slices.Clone(a.cfg.MAC) }

// Addrs are the attachment's addresses.
func (a *Attachment) Addrs() []netip.Addr { return slices.Clone(*a.addrs.Load()) }
