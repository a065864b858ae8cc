package vmlink

import (
	"net"
	"sync"
	"time"
)

// session is a guest: its connection, or the socket that datagrams come to.
type session struct {
	conn *net.UnixConn
	out  *outbox
	put  func(frame []byte) error // out.put, made once
	gone chan struct{}            // closed when the guest is gone and its connection closed

	datagrams bool
	peer      peer
	closing   sync.Once
}

func newSession(conn *net.UnixConn) *session {
	s := &session{conn: conn, out: newOutbox(), gone: make(chan struct{})}
	s.put = s.out.put
	return s
}

func (s *session) close() {
	s.closing.Do(func() {
		s.out.close()
		_ = s.conn.Close()
	})
}

// send gives the guest what is in the outbox, until the session is closed.
func (s *session) send(kind Kind) {
	var frames []byte
	for {
		if frames = s.out.take(frames); frames == nil {
			return
		}
		if kind == Stream {
			if _, err := s.conn.Write(frames); err != nil {
				s.out.close() // the reader notices the end by itself
				return
			}
			continue
		}
		for rest := frames; len(rest) > 0; {
			var frame []byte
			frame, rest = first(rest)
			s.sendPacket(frame)
		}
	}
}

// A receiver of datagrams has a queue of few (net.unix.max_dgram_qlen, 10 by default), and the kernel does not say
// when there is room. A frame is tried again for sendPatience, each sendPause, and is lost then.
const (
	sendPatience = 20 * time.Millisecond
	sendPause    = 50 * time.Microsecond
)

// sendPacket sends one frame as a record or datagram.
func (s *session) sendPacket(frame []byte) {
	to := s.peer.get()
	if s.datagrams && to == nil {
		return // it has not said where it is
	}
	var end time.Time
	for !trySend(s.conn, frame, to) {
		now := time.Now()
		if end.IsZero() {
			end = now.Add(sendPatience)
		} else if now.After(end) {
			return
		}
		time.Sleep(sendPause)
	}
}
