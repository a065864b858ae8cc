package bgp

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/usernet/usernet/internal/isolate"
)

// A session goes through these states (RFC 4271, section 8), without a listener and so without collisions:
//
//	dial -> OPEN sent -> their OPEN accepted, KEEPALIVE sent -> their KEEPALIVE: established -> the end

// session is a connection to a neighbour.
type session struct {
	n        *neighbor
	conn     net.Conn
	in       *bufio.Reader
	hold     time.Duration // 0: the neighbour may be silent for ever
	families []Family
	sent     map[NLRI]Path   // the writer's
	warned   map[Family]bool // the writer's: that routes of the family lead nowhere was said
}

// openWait is how long a neighbour may take to answer an OPEN (RFC 4271, section 8: a large value).
const openWait = 30 * time.Second

// session connects, and returns with why it ended.
func (n *neighbor) session(ctx context.Context) error {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	to := n.cfg.Addr.Addr()
	if local := n.s.addrs.of(to); local.IsValid() && !to.IsLinkLocalUnicast() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	if n.cfg.Password != "" {
		d.Control = signed(to, n.cfg.Password)
	}
	conn, err := d.DialContext(ctx, "tcp", n.cfg.Addr.String())
	if err != nil {
		var timeout net.Error
		if n.cfg.Password != "" && errors.As(err, &timeout) && timeout.Timeout() {
			err = fmt.Errorf("%w: a router with another password, or none, answers nothing (RFC 2385)", err)
		}
		return err
	}
	s := &session{n: n, conn: conn, in: bufio.NewReader(conn), sent: map[NLRI]Path{}, warned: map[Family]bool{}}
	defer conn.Close()
	defer s.wakeReader(ctx)()
	err = s.establish(ctx)
	if err == nil {
		err = s.speak(ctx)
	}
	if ctx.Err() != nil {
		err = &notification{code: errCease, subcode: ceaseShutdown}
	}
	var why *notification
	if errors.As(err, &why) && !why.received {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // it is on its way out
		_, _ = conn.Write(appendNotification(nil, why))
	}
	return err
}

func (a addrs) of(family netip.Addr) netip.Addr {
	if family.Is4() {
		return a.v4
	}
	return a.v6
}

// wakeReader has read return when ctx ends; stop undoes that.
func (s *session) wakeReader(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
}

// establish exchanges OPEN and KEEPALIVE.
func (s *session) establish(ctx context.Context) error {
	me := &s.n.self
	hold := s.n.s.cfg.Hold
	hello := open{asn: me.asn, hold: hold, id: me.id, families: families[:]}
	deadline := time.Now().Add(openWait)
	if err := errors.Join(s.conn.SetWriteDeadline(deadline), s.write(appendOpen(nil, hello))); err != nil {
		return err
	}
	kind, body, err := s.read(ctx, deadline)
	if err != nil {
		return err
	}
	if kind != msgOpen {
		return &notification{code: errFSM, subcode: 1, why: fmt.Sprintf("message %d before OPEN", kind)}
	}
	theirs, err := parseOpen(body)
	if err == nil {
		err = theirs.accept(s.n.cfg.ASN, me)
	}
	if err != nil {
		return err
	}
	if s.hold = min(hold, theirs.hold); theirs.hold == 0 {
		s.hold = 0
	}
	for _, f := range families {
		if theirs.has(f) {
			s.families = append(s.families, f)
		}
	}
	if err := s.write(appendKeepalive(nil)); err != nil {
		return err
	}
	kind, _, err = s.read(ctx, deadline)
	if err == nil && kind != msgKeepalive {
		err = &notification{code: errFSM, subcode: 2, why: fmt.Sprintf("message %d before KEEPALIVE", kind)}
	}
	return err
}

func (s *session) write(b []byte) error {
	_, err := s.conn.Write(b)
	return err
}

// read returns the next message; it needs wakeReader for ctx. A NOTIFICATION is an error.
func (s *session) read(ctx context.Context, deadline time.Time) (kind byte, body []byte, err error) {
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return 0, nil, err
	}
	if err := ctx.Err(); err != nil { // the deadline that wakes the reader may have been set before the other one
		return 0, nil, err
	}
	kind, body, err = readMessage(s.in)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if ctx.Err() != nil {
			return 0, nil, ctx.Err()
		}
		err = &notification{code: errHold}
	}
	if err == nil && kind == msgNotification {
		n := &notification{received: true}
		if len(body) >= 2 {
			n.code, n.subcode = body[0], body[1]
		}
		err = n
	}
	return kind, body, err
}

// readMessage reads one (RFC 4271, sections 4.1 and 6.1).
func readMessage(r io.Reader) (kind byte, body []byte, err error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	for _, b := range head[:markerLen] {
		if b != 0xff {
			return 0, nil, &notification{code: errHeader, subcode: headerNotSynchronized}
		}
	}
	n, kind := int(binary.BigEndian.Uint16(head[markerLen:])), head[headerLen-1]
	if n < headerLen || n > maxMessage || kind == msgKeepalive && n != headerLen {
		return 0, nil, &notification{code: errHeader, subcode: headerBadLength, data: head[markerLen : markerLen+2]}
	}
	if kind < msgOpen || kind > msgRouteRefresh {
		return 0, nil, &notification{code: errHeader, subcode: headerBadType, data: []byte{kind}}
	}
	body = make([]byte, n-headerLen)
	_, err = io.ReadFull(r, body)
	return kind, body, err
}

// speak reads what the neighbour says, while a goroutine writes, until one of them ends.
func (s *session) speak(ctx context.Context) error {
	s.n.established(s.families)
	ctx, stop := context.WithCancel(ctx)
	defer s.wakeReader(ctx)()
	written := make(chan error, 1)
	go func() {
		defer stop()
		written <- isolate.Call(s.n.s.log, "telling BGP routes", func() error { return s.announce(ctx) })
	}()
	err := s.listen(ctx)
	stop()
	_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second)) // the neighbour may read nothing any more
	if failed := <-written; failed != nil {
		err = failed
	}
	return err
}

// listen takes UPDATEs, until the hold timer or the neighbour ends it.
func (s *session) listen(ctx context.Context) error {
	for ctx.Err() == nil {
		var deadline time.Time
		if s.hold > 0 {
			deadline = time.Now().Add(s.hold)
		}
		kind, body, err := s.read(ctx, deadline)
		if err != nil {
			return err
		}
		switch kind {
		case msgUpdate:
			u, err := parseUpdate(body, &s.n.self)
			if err != nil {
				return err
			}
			if slices.Contains(s.families, EVPN) {
				s.n.take(u)
			}
		case msgOpen:
			return &notification{code: errFSM, subcode: 3, why: "a second OPEN"}
		}
	}
	return ctx.Err()
}

// announce writes what there is to announce, and keepalives, until ctx ends.
func (s *session) announce(ctx context.Context) error {
	s.n.tell()
	limit := s.hold
	if limit == 0 {
		limit = DefaultHold
	}
	keepalive := time.NewTicker(limit / 3) // RFC 4271, section 10
	defer keepalive.Stop()
	w := bufio.NewWriter(s.conn)
	first, changed := true, false
	for {
		select {
		case <-ctx.Done():
		case <-keepalive.C:
			_, _ = w.Write(appendKeepalive(nil)) // Flush returns its error
		case <-s.n.wake:
			changed = true
		}
		if err := s.conn.SetWriteDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
		if ctx.Err() != nil { // looked at behind the deadline, which speak then sets again
			return nil
		}
		if changed {
			s.difference(w)
		}
		for _, f := range s.families {
			if changed && first {
				_, _ = w.Write(appendEndOfRIB(nil, f))
			}
		}
		first, changed = first && !changed, false
		if err := w.Flush(); err != nil {
			return fmt.Errorf("telling routes: %w", err)
		}
	}
}

// difference writes what is to be announced and was not sent, and withdraws what was and is not any more.
func (s *session) difference(w *bufio.Writer) {
	want := s.n.s.outgoing()
	for nlri := range s.sent {
		if _, is := want[nlri]; !is {
			_, _ = w.Write(appendWithdrawal(nil, nlri)) // Flush returns its error
			delete(s.sent, nlri)
		}
	}
	withheld := map[string]int{}
	for nlri, path := range want {
		if !slices.Contains(s.families, nlri.Family) {
			withheld["the neighbour does not take "+nlri.Family.String()]++
			continue
		}
		if old, is := s.sent[nlri]; is && old.equal(path) {
			continue
		}
		b, err := appendUpdate(nil, Route{nlri, path}, &s.n.self)
		if err != nil {
			why := nlri.Family.String() + ": " + err.Error()
			if withheld[why]++; !s.warned[nlri.Family] {
				s.warned[nlri.Family] = true
				s.n.s.log.Warn("a BGP neighbour is not told routes", "neighbor", s.n.cfg.Addr, "route", nlri,
					"reason", why)
			}
			continue
		}
		_, _ = w.Write(b)
		s.sent[nlri] = path
	}
	s.n.announced(len(s.sent), withheld)
}
