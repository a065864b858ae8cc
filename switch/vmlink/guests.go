package vmlink

import (
	"net"
	"time"
)

// dialPause is how long the link waits before it looks again for a guest that listens.
const dialPause = 200 * time.Millisecond

// offer brings guests, one after another, until the link has stopped.
func (l *Link) offer(guests chan<- *session) {
	for {
		conn := l.nextConn()
		if conn == nil {
			return
		}
		if !l.free() {
			_ = conn.Close()
			l.warned.Do(func() {
				l.log.Warn("a second virtual machine was turned away: a socket is for one", "socket", l.cfg.Path)
			})
			continue
		}
		s := newSession(conn)
		if !l.admit(s) {
			return
		}
		select {
		case guests <- s:
		case <-l.stop:
			return
		}
		if l.ln == nil {
			select {
			case <-s.gone: // only then another connection is needed
			case <-l.stop:
				return
			}
		}
	}
}

// admit makes s the guest; false: the link has stopped, and s was closed.
func (l *Link) admit(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		s.close()
		return false
	}
	l.open = s
	l.current.Store(s)
	return true
}

// free says whether another guest may come. One whose process has ended is waited for: its end is read after what it
// has sent.
func (l *Link) free() bool {
	s := l.current.Load()
	if s == nil {
		return true
	}
	if !hungUp(s.conn) {
		return false
	}
	select {
	case <-s.gone:
		return true
	case <-l.stop:
		return false
	}
}

// nextConn accepts, or connects; nil: the link has stopped.
func (l *Link) nextConn() *net.UnixConn {
	for {
		conn, err := l.tryConn()
		if err == nil {
			return conn
		}
		select {
		case <-l.stop:
			return nil
		case <-time.After(dialPause): // nobody listens yet, or there are no descriptors now
		}
	}
}

func (l *Link) tryConn() (*net.UnixConn, error) {
	if l.ln != nil {
		return l.ln.AcceptUnix()
	}
	return net.DialUnix(network(l.cfg.Kind), nil, &net.UnixAddr{Name: l.cfg.Path, Net: network(l.cfg.Kind)})
}
