package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/network"
)

// Handover is what one daemon gives to the next: the descriptors that must not be closed in between.
type Handover struct {
	API       int           // the listener of the API; -1: none
	Published []int         // sockets of published ports
	Inherited []int         // sockets that the daemon was itself started with
	Sandboxes []SandboxFile // what leads into sandboxes
	Flows     []FlowFiles   // TCP connections that can go on; they come last of all
}

// FlowFiles are the descriptors of one TCP connection, and what the other daemon has to know to carry it on.
type FlowFiles struct {
	Network string // id
	State   json.RawMessage
	Count   int   // of descriptors
	FDs     []int `json:"-"` // go beside the message
}

// SandboxFile is a descriptor of something inside a sandbox, and what it is.
type SandboxFile struct {
	Kind      string // one of those below; daemons close what they do not know
	Container string // id
	Endpoint  string `json:",omitempty"` // id; of a TAP
	Interface string `json:",omitempty"` // name inside; of a TAP
	FD        int    `json:"-"`          // goes beside the message
}

// The kinds of sandboxes' descriptors.
const (
	FileTAP         = "tap"
	FileDNSPacket   = "dns-udp" // of the DNS stub
	FileDNSListener = "dns-tcp"
	FileDNSRules    = "dns-rules" // keeps the rules in place that lead to the stub
)

// Close closes all descriptors. It is safe to call twice.
func (h *Handover) Close() {
	fds := slices.Concat(h.Published, h.Inherited)
	for _, f := range h.Sandboxes {
		fds = append(fds, f.FD)
	}
	for _, f := range h.Flows {
		fds = append(fds, f.FDs...)
	}
	if h.API >= 0 {
		fds = append(fds, h.API)
	}
	for _, fd := range fds {
		_ = unix.Close(fd) // copies: nothing is lost with them
	}
	*h = Handover{API: -1}
}

// Successor is a daemon that wants to take this one's place. Close it when the state is free.
type Successor struct {
	*net.UnixConn
	labels bool // it understands messages with a body
}

// givePatience bounds how long a successor may take to read.
const givePatience = 10 * time.Second

// OnHandover has f called with each daemon that wants to take this one's place. It is set before Serve.
func (s *Server) OnHandover(f func(*Successor)) { s.handover = f }

// takeOver leaves HTTP: descriptors do not go through it.
func (s *Server) takeOver(w http.ResponseWriter, r *http.Request) {
	h, ok := w.(http.Hijacker)
	if !ok || s.handover == nil {
		fail(w, network.Errorf(network.NotSupported, "this daemon does not hand over"))
		return
	}
	labels := r.Header.Get(handoverHeader) != ""
	c, _, err := h.Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	if u, ok := c.(*net.UnixConn); ok {
		s.handover(&Successor{u, labels})
		return
	}
	_ = c.Close()
}

// Give sends h, and returns once the other daemon has it. The descriptors stay open here.
func (s *Successor) Give(h *Handover) error {
	if err := s.SetDeadline(time.Now().Add(givePatience)); err != nil {
		return err
	}
	if err := s.give(h); err != nil {
		return fmt.Errorf("handing over sockets: %w", err)
	}
	answer := make([]byte, 1)
	if _, err := s.Read(answer); err != nil || answer[0] != kindTaken {
		return errors.Join(errors.New("the other daemon did not take the sockets"), err)
	}
	return nil
}

// GiveFlows sends connections that this daemon has let go of, after Give. The descriptors stay open here.
func (s *Successor) GiveFlows(flows []FlowFiles) error {
	if !s.labels {
		return nil
	}
	if err := s.SetDeadline(time.Now().Add(givePatience)); err != nil {
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
		if err := sendBody(s.UnixConn, kindFlows, flows[:n], fds); err != nil {
			return fmt.Errorf("handing over connections: %w", err)
		}
		flows = flows[n:]
	}
	return nil
}

func (s *Successor) give(h *Handover) error {
	for _, x := range []struct {
		kind byte
		fds  []int
	}{{kindAPI, []int{h.API}}, {kindPublished, h.Published}, {kindInherited, h.Inherited}} {
		for fds := x.fds; len(fds) > 0; {
			n := min(len(fds), maxRights)
			if err := sendRights(s.UnixConn, []byte{x.kind}, fds[:n]); err != nil {
				return err
			}
			fds = fds[n:]
		}
	}
	for files := h.Sandboxes; s.labels && len(files) > 0; {
		n := min(len(files), maxRights)
		if err := sendFiles(s.UnixConn, files[:n]); err != nil {
			return err
		}
		files = files[n:]
	}
	_, err := s.Write([]byte{kindEnd})
	return err
}

// TakeOver asks the daemon at socket for its descriptors, and returns them when it has ended. Without a daemon there the
// error is ErrNoDaemon.
func TakeOver(socket string) (h Handover, err error) {
	h.API = -1
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return h, fmt.Errorf("%w at %s (%w)", ErrNoDaemon, socket, err)
	}
	defer conn.Close()
	c := conn.(*net.UnixConn) // since it was dialled so
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	if _, err := c.Write([]byte("POST /usernet/handover HTTP/1.1\r\nHost: usernet\r\n" + handoverHeader + ": 2\r\nContent-Length: 0\r\n\r\n")); err != nil {
		return h, err
	}
	if err := h.receive(c); err != nil {
		return h, err
	}
	if _, err := c.Write([]byte{kindTaken}); err != nil {
		return h, err
	}
	h.receiveFlows(c)
	return h, nil
}

// receiveFlows adds the connections that come until the other daemon has ended, and with it the lock on the state. What
// cannot be used is closed: nothing that comes now is needed to take its place.
func (h *Handover) receiveFlows(c *net.UnixConn) {
	for {
		m, err := receiveMessage(c)
		if err != nil {
			return
		}
		flows, err := m.flows()
		if err != nil || len(flows) == 0 {
			m.close()
			continue
		}
		h.Flows = append(h.Flows, flows...)
	}
}

// receive fills h with what comes until the end is announced. What it does not know it closes.
func (h *Handover) receive(c *net.UnixConn) error {
	for {
		m, err := receiveMessage(c)
		if err != nil {
			return err
		}
		switch m.kind {
		case kindAPI:
			if h.API >= 0 || len(m.fds) != 1 {
				m.close()
				return errors.New("the running daemon hands over no listener that could be used: stop it, then start this one without --takeover")
			}
			h.API = m.fds[0]
		case kindPublished:
			h.Published = append(h.Published, m.fds...)
		case kindInherited:
			h.Inherited = append(h.Inherited, m.fds...)
		case kindSandboxes:
			files, err := m.sandboxFiles()
			if err != nil {
				m.close()
				return err
			}
			h.Sandboxes = append(h.Sandboxes, files...)
		case kindEnd:
			m.close()
			if h.API < 0 {
				return errors.New("the running daemon does not hand over the API's listener: stop it, then start this one without --takeover")
			}
			return nil
		default:
			m.close() // of a daemon that is newer than this one
		}
	}
}
