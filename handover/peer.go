package handover

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Version is that of the conversation. Both daemons have to speak the same.
const Version = 2

// Path is the request of the API that begins a handover, by POST.
const Path = "/usernet/handover"

// versionHeader is in the request.
const versionHeader = "Usernet-Handover"

// patience bounds how long the other daemon may take to read a message.
const patience = 10 * time.Second

// Peer is the daemon that wants to take this one's place. Close it when the state is free.
type Peer struct {
	*net.UnixConn
}

// Serve begins a handover: it takes the connection out of HTTP, since descriptors do not go through that. Where it
// fails it has not answered, and the request is still HTTP.
func Serve(w http.ResponseWriter, r *http.Request) (*Peer, error) {
	if v := r.Header.Get(versionHeader); v != strconv.Itoa(Version) {
		return nil, fmt.Errorf("this daemon hands over by version %d, the other one asks for %q", Version, v)
	}
	h, ok := w.(http.Hijacker)
	if !ok {
		return nil, errors.New("this daemon does not hand over")
	}
	c, _, err := h.Hijack()
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if w, is := c.(interface{ Unwrap() *net.UnixConn }); is { // api's connections
		u, ok = w.Unwrap(), true
	}
	if !ok {
		_ = c.Close()
		return nil, http.ErrAbortHandler // nobody can be answered any more
	}
	return &Peer{u}, nil
}

// Offer sends copies of all that s has, and returns once the other daemon has it. The descriptors stay s's.
func (p *Peer) Offer(s *Set) error {
	if err := p.offer(s); err != nil {
		return fmt.Errorf("handing over: %w", err)
	}
	m, err := receive(p.UnixConn)
	if err != nil {
		return errors.Join(errors.New("the other daemon did not take what was handed over"), err)
	}
	m.close()
	if m.kind != kindTaken {
		return fmt.Errorf("the other daemon answers with a message of kind %q", m.kind)
	}
	return nil
}

func (p *Peer) offer(s *Set) error {
	if err := p.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := p.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: usernet-handover\r\n\r\n")); err != nil {
		return err
	}
	var ids []ID
	var fds []int
	flush := func() error {
		if len(ids) == 0 {
			return nil
		}
		err := send(p.UnixConn, kindFDs, ids, fds)
		ids, fds = nil, nil
		return err
	}
	for id, fd := range s.All() {
		ids, fds = append(ids, id), append(fds, fd)
		if len(fds) == maxRights {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return send(p.UnixConn, kindEnd, nil, nil)
}

// OfferFlows sends connections that this daemon has let go of, after Offer. The descriptors stay the caller's.
func (p *Peer) OfferFlows(flows []Flow) error {
	if err := p.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for len(flows) > 0 {
		n, fds := 0, []int(nil)
		for n < len(flows) && len(fds)+len(flows[n].FDs) <= maxRights {
			fds = append(fds, flows[n].FDs...)
			n++
		}
		if n == 0 {
			return fmt.Errorf("a connection with %d descriptors", len(flows[0].FDs))
		}
		if err := send(p.UnixConn, kindFlows, flows[:n], fds); err != nil {
			return fmt.Errorf("handing over connections: %w", err)
		}
		flows = flows[n:]
	}
	return nil
}
