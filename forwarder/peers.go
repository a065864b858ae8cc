package forwarder

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/relay"
	"github.com/usernet/usernet/internal/sockio"
)

// A connection between containers of two hosts goes from socket to socket like one that bypasses the gateway: a socket
// of each sandbox, and a connection of the hosts between them (PeerConn), which others make. Whatever is in the way is
// an error, and then the container's SYN goes on as a frame: only that says what there is to say about a port that is
// closed.
//
//	container   its host: ConnectPeer          the other host: AcceptPeer   the service
//	  | SYN ------> |                                     |                     |
//	  |             | a socket of the sandbox; dial ----> | connect ----------> |
//	  |             | <---------------------------- take  | <-------- connected |
//	  | <------ SYN | simultaneous open                   |                     |
//	  | SYN,ACK --> |                                     |                     |

// PeerConn is a connection to another host that carries one connection between containers. Who has it owns it.
type PeerConn struct {
	FD     int          // a connected, non-blocking socket, where Stream is nil
	Stream relay.Stream // a sealed one; nil: it is plain
	Local  netip.AddrPort
}

// close resets it.
func (p PeerConn) close() {
	if p.Stream != nil {
		p.Stream.Reset()
		return
	}
	_ = sockio.SetLinger(p.FD, true)
	_ = unix.Close(p.FD)
}

// ErrUnanswered says that a container has not answered on a socket of its namespace: what became of its SYN is unknown,
// and it is to send it again.
var ErrUnanswered = errors.New("the container has not answered")

// acceptPeerTimeout is how long a service may take to accept. Nothing delays packets within a namespace; a service
// whose queue is full does not answer.
const acceptPeerTimeout = 500 * time.Millisecond

// Peer is a connection between a container and one of another host, as it is asked for.
type Peer struct {
	Inside, Outside netip.AddrPort // the container's end, and that of the other host's
	Seq             uint32         // of the SYN of the container at Inside, for ConnectPeer
	Sealed          bool           // Dial makes a Stream
	// Allowed says why the connection may not be; nil: it may. It is asked once the connection is listed: who changes
	// the rules later finds it there (EndPeers).
	Allowed func() error
	// Dial makes the connection to the other host, and with it to the container there, or tells that host that this one
	// has connected to its container. It is called once.
	Dial func(context.Context) (PeerConn, error)
}

// ConnectPeer makes the connection that the container at p.Inside asks for. Nil is the end of the SYN: it is answered,
// or there is a flow. With ErrUnanswered it is to be dropped, and with another error to go on as a frame.
func (f *Forwarder) ConnectPeer(ctx context.Context, p Peer) error {
	if f.has(flowKey{p.Inside, p.Outside}, p.Seq) {
		return nil
	}
	socket, fl, conn, err := f.dialPeer(ctx, p)
	if err != nil {
		return err
	}
	err = f.connectBypass(ctx, socket, p.Inside, p.Outside, simultaneousOpenTimeout)
	if ctx.Err() == nil {
		f.tellOutcome(fl, err)
	}
	if err != nil {
		_ = unix.Close(socket)
		conn.close()
		f.removeFlow(fl)
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, unix.EADDRNOTAVAIL) || ctx.Err() != nil {
			return errors.Join(ErrUnanswered, err) // it may be connected
		}
		return err
	}
	f.counters[countPeersOutbound].Add(1)
	fl.relayPeer(socket, conn)
	return nil
}

// dialPeer takes a socket of the container's namespace, and makes the connection to the other host.
func (f *Forwarder) dialPeer(ctx context.Context, p Peer) (socket int, fl *flow, conn PeerConn, err error) {
	if !f.acquireUse(p.Inside.Addr(), useDialling) {
		return -1, nil, conn, errTooMany
	}
	defer f.releaseUse(p.Inside.Addr(), useDialling)
	if socket, err = f.bypassSocket(ctx, p.Inside, p.Outside, true); err != nil {
		return -1, nil, conn, err
	}
	fl, conn, err = f.beginPeer(ctx, "out", p, socket)
	return socket, fl, conn, err
}

// AcceptPeer connects the container of another host at p.Outside to the one at p.Inside.
func (f *Forwarder) AcceptPeer(ctx context.Context, p Peer) error {
	ctx, cancel := context.WithTimeout(ctx, acceptPeerTimeout)
	defer cancel()
	if !f.acquireUse(p.Inside.Addr(), useDialling) {
		return errTooMany
	}
	defer f.releaseUse(p.Inside.Addr(), useDialling)
	socket, err := f.dialBypass(ctx, p.Inside, p.Outside, false, acceptPeerTimeout)
	if err != nil {
		return err
	}
	fl, conn, err := f.beginPeer(ctx, "in", p, socket)
	if err != nil {
		return err
	}
	f.counters[countPeersInbound].Add(1)
	fl.relayPeer(socket, conn)
	return nil
}

// beginPeer lists a flow of which socket is the container's end, and makes the connection to the other host. Where it
// fails the socket is closed.
func (f *Forwarder) beginPeer(ctx context.Context, direction string, p Peer, socket int) (*flow, PeerConn, error) {
	fl := &flow{f: f, direction: direction, path: PathSockets, inside: p.Inside, outside: p.Outside, seq: p.Seq}
	if err := f.addFlow(fl, socket); err != nil {
		return nil, PeerConn{}, errors.Join(err, unix.Close(socket))
	}
	var conn PeerConn
	err := p.Allowed()
	if err == nil && p.Sealed && !f.claimStream(fl) {
		err = errTooMany
	}
	if err == nil {
		conn, err = p.Dial(ctx)
	}
	if err != nil {
		f.removeFlow(fl)
		return nil, PeerConn{}, errors.Join(err, unix.Close(socket))
	}
	fl.setHostSide(conn.Local)
	return fl, conn, nil
}

// claimStream has the container of a flow hold the memory of a stream.
func (f *Forwarder) claimStream(fl *flow) bool {
	m, client := f.cfg.Shared.memory, f.client(fl.inside.Addr())
	if !m.AcquireUpTo(client, relay.StreamMemory, 1) {
		f.counters[countMemoryLimit].Add(1)
		return false
	}
	fl.memory = claim{from: m, client: client, n: relay.StreamMemory}
	return true
}

// relayPeer relays a flow between a socket and a connection to another host, both of which it owns from here on.
func (fl *flow) relayPeer(socket int, peer PeerConn) {
	if peer.Stream == nil {
		fl.relay(socket, peer.FD)
		return
	}
	f := fl.f
	if !f.trackFlow(fl) {
		_ = unix.Close(socket)
		peer.close()
		f.removeFlow(fl)
		return
	}
	fl.setSession(f.loop.RelayStream(socket, peer.Stream, fl.options()), false)
}

// EndPeers resets the connections with containers of other hosts that may be no longer. ends says so of one: from and
// to are the container that asked for it and the other one, outside is the one of the other host.
func (f *Forwarder) EndPeers(ends func(from, to netip.AddrPort, outside netip.Addr) bool) {
	f.mu.Lock()
	var list []*flow
	for _, own := range f.flows {
		for fl := range own {
			if fl.path == PathSockets {
				list = append(list, fl)
			}
		}
	}
	f.mu.Unlock()
	for _, fl := range list {
		from, to := fl.inside, fl.outside
		if fl.direction == "in" {
			from, to = to, from
		}
		if ends(from, to, fl.outside.Addr()) {
			fl.abort()
		}
	}
}
