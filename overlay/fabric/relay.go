package fabric

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
)

// Where two hosts do not reach each other, a third that both reach passes their sealed datagrams on. It cannot read
// them: they are sealed for the other end, and sealed again for the way to the relay. A relay passes on what has one
// hop to go, and nothing that was relayed to it, so there are no loops.

const (
	relayRate, relayBurst = 20000, 2000 // datagrams a second that a host has passed on by each other
	relayQueue            = 256         // relayed datagrams that wait for WireGuard
	relayTries            = 3           // hosts that are asked to pass a handshake on
	relayPrefix           = "relay:"
)

// relayEndpoint is a host that is reached through another.
type relayEndpoint struct {
	noSource
	via, to *peer
}

func (e *relayEndpoint) DstToString() string { return relayPrefix + string(e.via.host) }
func (e *relayEndpoint) DstToBytes() []byte  { return []byte(e.via.host + e.to.host) }
func (e *relayEndpoint) DstIP() netip.Addr {
	if a := e.via.inside.Load(); a != nil {
		return *a
	}
	return netip.Addr{}
}

// parseRelay is the host that a session's endpoint goes through.
func parseRelay(endpoint string) (overlay.HostID, bool) {
	h, ok := strings.CutPrefix(endpoint, relayPrefix)
	return overlay.HostID(h), ok
}

// relayRoom is how large a sealed datagram through a relay may be.
func relayRoom(via *peer) int {
	d := via.dest.Load()
	if d == nil {
		return 0
	}
	return seal.Room(int(via.pathMTU.Load())-outerHeaders(d.sock.v6)) - vxlanHeaderLen - relayHeader
}

// sendRelayed has a relay pass messages on.
func (f *Fabric) sendRelayed(e *relayEndpoint, bufs [][]byte) {
	for _, b := range bufs {
		m := make([]byte, relayHeader, relayHeader+len(b))
		m[0] = controlRelay
		putHost(m[2:], e.to.host)
		if e.via.inside.Load() == nil || !e.via.sendControl(append(m, b...), nil) {
			f.drops[DropNoSeal].Add(1)
		}
	}
}

// relay passes a message of one host on to another.
func (f *Fabric) relay(from *peer, m []byte) {
	if len(m) < relayHeader+sealMin || !isSealed(m[relayHeader:]) {
		f.drops[DropMalformed].Add(1)
		return
	}
	now := time.Now()
	to := f.state.Load().byHost[hostOf(m[2:])]
	if to == nil || to == from || to.via.Load() != nil || from.via.Load() != nil || to.inside.Load() == nil ||
		!to.isAlive(now) {
		f.drops[DropNoPeer].Add(1)
		return
	}
	from.relaying.Lock()
	ok := from.relaying.Allow(now, 1)
	from.relaying.Unlock()
	if !ok {
		f.drops[DropRate].Add(1)
		return
	}
	m[0] = controlRelayed
	putHost(m[2:], from.host)
	if !to.sendControl(m, nil) {
		f.drops[DropNoSeal].Add(1)
	}
}

// relayedMessage is one that waits for WireGuard.
type relayedMessage struct {
	bytes    []byte
	endpoint conn.Endpoint
}

// takeRelayed gives WireGuard a message that a relay passed on. Who sent it, WireGuard finds out.
func (f *Fabric) takeRelayed(via *peer, m []byte) {
	if len(m) < relayHeader+sealMin || !isSealed(m[relayHeader:]) || via.via.Load() != nil {
		f.drops[DropMalformed].Add(1)
		return
	}
	from := f.state.Load().byHost[hostOf(m[2:])]
	if from == nil || from == via || from.inside.Load() == nil {
		f.drops[DropUnknownPeer].Add(1)
		return
	}
	message := relayedMessage{append([]byte(nil), m[relayHeader:]...), &relayEndpoint{via: via, to: from}}
	if d := from.dest.Load(); m[relayHeader] == sealData && from.via.Load() == nil && d != nil &&
		from.isAlive(time.Now()) {
		message.endpoint = &addrEndpoint{dest: *d} // a late one does not lead back to the relay
	}
	select {
	case f.relayed <- message:
	default:
		f.drops[DropRate].Add(1)
	}
}

// receiveRelayed implements conn.ReceiveFunc for what relays pass on.
func (f *Fabric) receiveRelayed(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	if len(bufs) == 0 {
		return 0, errors.New("no room for a message")
	}
	select {
	case m := <-f.relayed:
		sizes[0] = copy(bufs[0], m.bytes)
		eps[0] = m.endpoint
		return 1, nil
	case <-f.stop:
		return 0, net.ErrClosed
	}
}

// relayHandshake asks hosts that answer to pass a handshake on. Which of them reach the other end is not known, so the
// next handshake goes by the next ones, until all were asked.
func (f *Fabric) relayHandshake(p *peer, bufs [][]byte) {
	now := time.Now()
	var hosts []*peer
	for _, via := range f.state.Load().byHost {
		if via != p && via.via.Load() == nil && via.inside.Load() != nil && !via.isLost(now) {
			hosts = append(hosts, via)
		}
	}
	slices.SortFunc(hosts, func(a, b *peer) int { return cmp.Compare(a.host, b.host) })
	tries := min(len(hosts), relayTries)
	turn := int(p.relayTurn.Add(relayTries))
	for i := range tries {
		f.sendRelayed(&relayEndpoint{via: hosts[(turn+i)%len(hosts)], to: p}, bufs)
	}
}
