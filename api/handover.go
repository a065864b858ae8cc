package api

import (
	"errors"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/network"
)

// Handover is what one daemon gives to the next: the sockets that must not be closed in between.
type Handover struct {
	API       int   // the listener of the API
	Published []int // of published ports
	Inherited []int // that the daemon was itself started with
}

// The kinds of descriptors, as a byte beside each message that carries them, and what ends them.
const (
	kindAPI, kindPublished, kindInherited = 'a', 'p', 'i'
	kindEnd, kindTaken                    = 'e', 't'
	maxRights                             = 253 // descriptors in one message (SCM_MAX_FD, include/net/scm.h)
)

// OnHandover has f called with the connection of a daemon that wants to take this one's place. It is set before Serve.
func (s *Server) OnHandover(f func(*net.UnixConn)) { s.handover = f }

// takeOver leaves HTTP: descriptors do not go through it.
func (s *Server) takeOver(w http.ResponseWriter, _ *http.Request) {
	h, ok := w.(http.Hijacker)
	if !ok || s.handover == nil {
		fail(w, network.Errorf(network.NotSupported, "this daemon does not hand over"))
		return
	}
	c, _, err := h.Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	if u, ok := c.(*net.UnixConn); ok {
		s.handover(u)
		return
	}
	_ = c.Close()
}

// Give sends h, and returns once the other daemon has it. The descriptors stay open here.
func (h Handover) Give(c *net.UnixConn) error {
	for _, x := range []struct {
		kind byte
		fds  []int
	}{{kindAPI, []int{h.API}}, {kindPublished, h.Published}, {kindInherited, h.Inherited}} {
		for fds := x.fds; len(fds) > 0; {
			n := min(len(fds), maxRights)
			if _, _, err := c.WriteMsgUnix([]byte{x.kind}, unix.UnixRights(fds[:n]...), nil); err != nil {
				return fmt.Errorf("handing over sockets: %w", err)
			}
			fds = fds[n:]
		}
	}
	if _, err := c.Write([]byte{kindEnd}); err != nil {
		return fmt.Errorf("handing over sockets: %w", err)
	}
	answer := make([]byte, 1)
	if _, err := c.Read(answer); err != nil || answer[0] != kindTaken {
		return errors.Join(errors.New("the other daemon did not take the sockets"), err)
	}
	return nil
}

// TakeOver asks the daemon at socket for its sockets, and returns them when it has ended. Without a daemon there the error
// is ErrNoDaemon.
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
			h.close()
		}
	}()
	if _, err := c.Write([]byte("POST /usernet/handover HTTP/1.1\r\nHost: usernet\r\nContent-Length: 0\r\n\r\n")); err != nil {
		return h, err
	}
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(maxRights*4))
	for {
		n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return h, errors.Join(errors.New("the daemon ended while it handed over"), err)
		}
		fds, err := receivedRights(oob[:oobn])
		if err != nil {
			return h, err
		}
		switch buf[0] {
		case kindAPI:
			h.API = fds[0]
		case kindPublished:
			h.Published = append(h.Published, fds...)
		case kindInherited:
			h.Inherited = append(h.Inherited, fds...)
		case kindEnd:
			if _, err := c.Write([]byte{kindTaken}); err != nil {
				return h, err
			}
			_, _ = c.Read(buf) // returns when it has ended, and with it the lock on the state
			return h, nil
		default:
			return h, errors.New("the running daemon does not hand over: stop it, then start this one without --takeover")
		}
	}
}

func receivedRights(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var all []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
		all = append(all, fds...)
	}
	return all, nil
}

func (h Handover) close() {
	for _, list := range [][]int{h.Published, h.Inherited} {
		for _, fd := range list {
			_ = unix.Close(fd)
		}
	}
	if h.API >= 0 {
		_ = unix.Close(h.API)
	}
}
