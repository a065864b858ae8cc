package handover

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// This file has both sides of the protocol: first that of the daemon which hands over (Serve, Offer, OfferFlows), then
// that of its successor (Receive). Messages are in message.go.

// Version is that of the conversation. Both daemons have to speak the same.
const Version = 2

// Path is the request of the API that begins a handover, by POST.
const Path = "/usernet/handover"

// versionHeader is in the request.
const versionHeader = "Usernet-Handover"

// patience is how long the other daemon may take to read a message.
const patience = 10 * time.Second

// ErrNobody says that no daemon answers at the socket, so that there is nothing to take over.
var ErrNobody = errors.New("no daemon to take over from")

// errStopIt is what a user can do where a daemon cannot hand over.
var errStopIt = errors.New("stop it, then start this one without --takeover")

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

// maxHead bounds the answer to the request, in bytes.
const maxHead = 8 << 10

// Receive asks the daemon at socket for its descriptors, and returns them when it has ended, with the connections that
// it has let go of.
func Receive(socket string) (s *Set, flows []Flow, err error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNobody, err)
	}
	defer conn.Close()
	c := conn.(*net.UnixConn) // since it was dialled so
	request := fmt.Sprintf(
		"POST %s HTTP/1.1\r\nHost: usernet\r\n%s: %d\r\nContent-Length: 0\r\n\r\n",
		Path,
		versionHeader,
		Version,
	)
	if _, err := c.Write([]byte(request)); err != nil {
		return nil, nil, err
	}
	if err := readHead(c); err != nil {
		return nil, nil, err
	}
	s = &Set{}
	if err := s.receive(c); err != nil {
		s.Close()
		return nil, nil, err
	}
	if err := send(c, kindTaken, nil, nil); err != nil {
		s.Close()
		return nil, nil, err
	}
	return s, receiveFlows(c), nil
}

// readHead reads the answer to the request. It reads byte by byte: a longer read could take descriptors with it, which
// net.Conn drops.
func readHead(c *net.UnixConn) error {
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		if len(head) == maxHead {
			return fmt.Errorf("the running daemon answers at length and does not hand over: %w", errStopIt)
		}
		if _, err := c.Read(b); err != nil {
			return errors.Join(errCutOff, err)
		}
		head = append(head, b[0])
	}
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil)
	if err != nil {
		return fmt.Errorf("the running daemon does not hand over (%w): %w", err, errStopIt)
	}
	if r.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	var m struct{ Message string }
	_ = json.NewDecoder(io.LimitReader(c, maxHead)).Decode(&m) // the status says enough
	return fmt.Errorf("the running daemon does not hand over (%s %s): %w", r.Status, m.Message, errStopIt)
}

// receive adds the descriptors that come to s, until the end is announced. It closes those of kinds that it does not
// know.
func (s *Set) receive(c *net.UnixConn) error {
	for {
		m, err := receive(c)
		if err != nil {
			return err
		}
		switch m.kind {
		case kindFDs:
			err = m.into(s)
		case kindEnd:
			if s.Count(API) == 0 {
				err = fmt.Errorf("the running daemon does not hand over the API's listener: %w", errStopIt)
			}
			m.close()
			return err
		}
		m.close() // what into has not taken
		if err != nil {
			return err
		}
	}
}

// receiveFlows returns the connections that come until the other daemon has ended, which frees the lock on the state.
// It closes those that it cannot use: a takeover succeeds without them.
func receiveFlows(c *net.UnixConn) []Flow {
	var all []Flow
	for {
		m, err := receive(c)
		if err != nil {
			return all
		}
		if m.kind == kindFlows {
			if flows, err := m.flows(); err == nil {
				all = append(all, flows...)
			}
		}
		m.close()
	}
}
