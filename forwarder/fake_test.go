package forwarder

import (
	"context"
	"errors"
	"net/netip"

	"github.com/usernet/usernet/forwarder/relay/relaytest"
)

// fakeGateway is a network in memory: one container, whose connections are relaytest.Conns.
type fakeGateway struct {
	fakeInside
	dialled chan *relaytest.Conn // what DialTCP has made
	err     error                // of DialTCP
}

func (g *fakeGateway) DialTCP(_ context.Context, src, dst netip.AddrPort) (Conn, error) {
	if g.err != nil {
		return nil, g.err
	}
	c := relaytest.NewConn(1 << 20)
	g.dialled <- c
	return c, nil
}

func (g *fakeGateway) WriteUDP(_, _ netip.AddrPort, _ [][]byte, _ int) error { return nil }
func (g *fakeGateway) WriteICMP(_, _ netip.Addr, _ []byte) error             { return nil }

// fakeSYN says how it was decided.
type fakeSYN struct {
	src, dst netip.AddrPort
	seq      uint32
	bypass   bool
	conn     *relaytest.Conn // what Accept returns; nil: it fails
	decided  chan string
}

func newFakeSYN(dst string) *fakeSYN {
	return &fakeSYN{src: netip.MustParseAddrPort("172.30.0.2:1000"), dst: netip.MustParseAddrPort(dst),
		conn: relaytest.NewConn(1 << 20), decided: make(chan string, 2)}
}

func (s *fakeSYN) Ends() (src, dst netip.AddrPort) { return s.src, s.dst }
func (s *fakeSYN) Seq() uint32                     { return s.seq }
func (s *fakeSYN) CanBypass() bool                 { return s.bypass }
func (s *fakeSYN) Bypassed()                       { s.decided <- "answered" }
func (s *fakeSYN) Refuse()                         { s.decided <- "refused" }
func (s *fakeSYN) Drop()                           { s.decided <- "dropped" }

func (s *fakeSYN) Unreachable(host bool) {
	if host {
		s.decided <- "host unreachable"
	} else {
		s.decided <- "network unreachable"
	}
}

func (s *fakeSYN) Accept() (Conn, error) {
	s.decided <- "accepted"
	if s.conn == nil {
		return nil, errors.New("the handshake failed")
	}
	return s.conn, nil
}

var (
	_ Gateway = (*fakeGateway)(nil)
	_ SYN     = (*fakeSYN)(nil)
	_ Conn    = (*relaytest.Conn)(nil)
)
