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
)

// ErrNobody says that no daemon answers at the socket, so that there is nothing to take over.
var ErrNobody = errors.New("no daemon to take over from")

// errStopIt is what a user can do where a daemon cannot hand over.
var errStopIt = errors.New("stop it, then start this one without --takeover")

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

// receive fills s with what comes until the end is announced. What it does not know it closes.
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

// receiveFlows returns the connections that come until the other daemon has ended, and with it the lock on the state.
// What cannot be used is closed: nothing that comes now is needed to take its place.
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
