package fabric

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/hostconn"
	vswitch "github.com/usernet/usernet/switch"
)

// Bounds of the SYNs that a network holds back. What is beyond goes by frames.
const (
	maxHeld           = 1024
	heldRate          = 500 // a second: each costs two hosts a handshake of TLS
	heldBurst         = 1000
	heldFor           = 2 * time.Second // a container sends its SYN again after one (RFC 6298, 2.1)
	maxByFrames       = 1 << 14
	remembersByFrames = 130 * time.Second // as long as a container sends a SYN again (net.ipv4.tcp_syn_retries: 6)
)

// synKey tells a connection from others of its network.
type synKey struct{ src, dst netip.AddrPort }

// heldSYNs are a network's SYNs that wait for a decision, and those that went on as frames: one that is sent again goes
// the way that the first went.
//
//	SYN -> held -> answered by a socket
//	  |      +---> by frames, for remembersByFrames
//	  +----------> by frames
type heldSYNs struct {
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	to       Sockets    // nil: all goes by frames
	held     map[synKey]*synSource
	byFrames map[synKey]byFrames
	tidied   time.Time // when byFrames was last rid of what is over
	shares   shares
}

// byFrames is a SYN that goes by frames.
type byFrames struct {
	until time.Time
	of    *synSource
}

func (s *heldSYNs) init() {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.held, s.byFrames = map[synKey]*synSource{}, map[synKey]byFrames{}
	s.shares.init()
}

// close ends all that is being decided, and waits for it.
func (s *heldSYNs) close() {
	s.mu.Lock()
	s.to = nil
	s.mu.Unlock()
	s.cancel()
	s.ended.Wait()
}

// begin returns what makes connections, and has close wait until done is called; nil: nothing does.
func (s *heldSYNs) begin() (to Sockets, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.to == nil {
		return nil, nil
	}
	s.ended.Add(1)
	return s.to, s.ended.Done
}

// SetSockets has TCP connections with containers of other hosts go from socket to socket, as far as that can be. It is
// called once, before the first frame.
func (l *Link) SetSockets(d Sockets) {
	if l.f.hostconns == nil || l.cfg.Routed != nil {
		return // without a key nobody is known
	}
	l.held.mu.Lock()
	defer l.held.mu.Unlock()
	if l.held.ctx.Err() == nil {
		l.held.to = d
		l.holds.Store(true)
	}
}

// hold takes a SYN for which there may be a connection from socket to socket. False: the frame goes on.
func (l *Link) hold(t *table, f *vswitch.Frame, h *inner, payload []byte) bool {
	if !l.holds.Load() || h.proto != packet.ProtoTCP || h.fragment {
		return false
	}
	const deciding = tcpFIN | tcpSYN | tcpRST | tcpACK
	if payload[h.l4+tcpFlags]&deciding != tcpSYN {
		return false
	}
	src, dst := h.ends(payload)
	e := t.byAddr[dst]
	eth := f.Ethernet()
	if e == nil || e.MAC != overlay.MAC(eth[:6]) || !e.peer.takesSockets() {
		return false
	}
	key := synKey{
		netip.AddrPortFrom(src, binary.BigEndian.Uint16(payload[h.l4:])),
		netip.AddrPortFrom(dst, binary.BigEndian.Uint16(payload[h.l4+2:])),
	}
	now := time.Now()
	may := h.data == h.length && f.Virtio().GSO == vswitch.GSONone && packet.PlainSYN(payload[h.l4:h.data]) &&
		e.peer.sockets.mayTake(now) && e.peer.isAlive(now)
	to, again := l.held.take(key, may, now)
	if to == nil {
		if again {
			l.drop(DropHeld)
		}
		return again
	}
	kept := &vswitch.Frame{Header: f.Header, Payload: [][]byte{slices.Clone(payload[:h.length])}}
	go func() {
		defer l.held.ended.Done()
		l.decide(to, key, overlay.MAC(eth[6:12]), e.peer, kept)
	}()
	return true
}

// take has a SYN be decided about by what it returns, which close waits for. Nil: it is being decided about already
// (again), or goes on as a frame. may says whether it can be decided about at all.
func (s *heldSYNs) take(key synKey, may bool, now time.Time) (to Sockets, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, is := s.held[key]; is {
		return nil, true
	}
	if f, is := s.byFrames[key]; is && now.Before(f.until) || s.to == nil {
		return nil, false
	}
	o := s.shares.sources.Of(key.src.Addr(), now)
	if !may || !hasRoom(o.held, ownHeld, len(s.held), maxHeld) || !s.shares.allow(o, now) {
		s.note(key, o, now)
		return nil, false
	}
	s.forget(key)
	s.held[key] = o
	o.held++
	s.ended.Add(1)
	return s.to, false
}

// forget has a SYN no longer go by frames. The caller holds mu.
func (s *heldSYNs) forget(key synKey) {
	if f, is := s.byFrames[key]; is {
		f.of.byFrames--
		delete(s.byFrames, key)
	}
}

// note remembers that a SYN goes by frames. Where there are too many such, it is not remembered. The caller holds mu.
func (s *heldSYNs) note(key synKey, o *synSource, now time.Time) {
	s.forget(key)
	full := !hasRoom(o.byFrames, ownByFrames, len(s.byFrames), maxByFrames)
	if full && now.Sub(s.tidied) > time.Second { // not for each SYN of a flood
		s.tidied = now
		for k, f := range s.byFrames {
			if now.After(f.until) {
				s.forget(k)
			}
		}
	}
	if hasRoom(o.byFrames, ownByFrames, len(s.byFrames), maxByFrames) {
		s.byFrames[key] = byFrames{now.Add(remembersByFrames), o}
		o.byFrames++
	}
}

// decided is the end of what take began.
func (s *heldSYNs) decided(key synKey, byFrames bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.held[key]
	delete(s.held, key)
	o.held--
	if byFrames {
		s.note(key, o, time.Now())
	}
}

// decide has a SYN answered, or sends it as a frame.
func (l *Link) decide(to Sockets, key synKey, mac overlay.MAC, p *peer, f *vswitch.Frame) {
	ctx, cancel := context.WithTimeout(l.held.ctx, heldFor)
	defer cancel()
	payload := f.Payload[0]
	h, _ := parseInner(f.EtherType(), payload) // it was parsed before
	seq := binary.BigEndian.Uint32(payload[h.l4+tcpSeq:])
	err := isolate.Call(l.f.log, "connecting two containers", func() error {
		return to.Connect(ctx, Connection{
			From:   key.src,
			To:     key.dst,
			MAC:    mac,
			Seq:    seq,
			Sealed: l.cfg.Sealed,
			Dial: func(ctx context.Context) (*hostconn.Conn, error) {
				return l.dialHost(ctx, p, key.src, key.dst)
			},
		})
	})
	byFrames := err != nil && !errors.Is(err, ErrDropSYN)
	l.held.decided(key, byFrames)
	if err != nil {
		l.f.log.Debug("a connection does not go from socket to socket", "network", l.cfg.Name, "from", key.src,
			"to", key.dst, "host", p.host.Short(), "error", err)
	}
	if !byFrames || l.held.ctx.Err() != nil {
		return
	}
	l.sendTo(p, f, &h, payload)
}
