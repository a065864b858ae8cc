package fabric

import (
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
)

// MaxTold is the longest message that Tell sends, in bytes. It fits an Ethernet, sealed.
const MaxTold = 1380

// Tell sends a message to all hosts that answer, sealed, each at most once and without a promise; Config.Told is what
// they do with it. It returns to how many it went: not to those whose path is too narrow.
func (f *Fabric) Tell(message []byte) (sent int) {
	if len(message) == 0 || len(message) > MaxTold || f.tunnel.Load() == nil {
		return 0
	}
	m := append([]byte{controlTell}, message...)
	now := time.Now()
	for _, p := range f.state.Load().byHost {
		if p.inside.Load() == nil || !p.isAlive(now) || len(m) > p.controlRoom() || !p.mayStage(1) {
			continue
		}
		if p.sendControl(m, nil) {
			sent++
		}
	}
	return sent
}

// controlRoom is how long a message to the peer may be.
func (p *peer) controlRoom() int {
	d := p.dest.Load()
	switch via := p.via.Load(); {
	case p.carrier.Load() != nil:
		return MaxTold + 1
	case d == nil:
		return 0
	case via != nil:
		return seal.Room(relayRoom(via)) - vxlanHeaderLen
	}
	return seal.Room(int(p.pathMTU.Load())-outerHeaders(d.sock.v6)) - vxlanHeaderLen
}

// told gives what a host has told to whom it is for.
func (f *Fabric) told(p *peer, m []byte) {
	if f.cfg.Told == nil || len(m) > MaxTold {
		f.drops[DropMalformed].Add(1)
		return
	}
	f.cfg.Told(p.host, m)
}

// TellHost sends a message to one host as Tell does, and says whether it left.
func (f *Fabric) TellHost(to overlay.HostID, message []byte) bool {
	p := f.state.Load().byHost[to]
	if p == nil || p.inside.Load() == nil || len(message) == 0 || len(message) > MaxTold ||
		len(message)+1 > p.controlRoom() || !p.mayStage(1) {
		return false
	}
	return p.sendControl(append([]byte{controlTell}, message...), nil)
}

// PathTo is how frames go to a host now. alive says that it answered lately.
func (f *Fabric) PathTo(host overlay.HostID) (path Path, alive bool) {
	p := f.state.Load().byHost[host]
	if p == nil {
		return Direct, false
	}
	s := p.describe()
	return s.Path, s.Alive
}
