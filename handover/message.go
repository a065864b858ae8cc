package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/usernet/usernet/internal/sockio"
)

// A message is a kind in one byte, with descriptors beside it (unix(7), SCM_RIGHTS), the length of its body in four
// bytes, most significant first, and the body in JSON.
const (
	kindFDs   = 'd' // the body is a list of ID, one for each descriptor in their order
	kindEnd   = 'e' // no more descriptors
	kindTaken = 't' // the successor has them all
	kindFlows = 'f' // the body is a list of Flow, the descriptors are those of all in their order; after kindTaken
)

const (
	maxRights = sockio.MaxRights // descriptors in one message
	maxBody   = 1 << 20          // bytes: several times what maxRights descriptors need
	lengthLen = 4                // bytes of a body's length
)

// message is one message. Who has it owns its descriptors.
type message struct {
	kind byte
	fds  []int
	body []byte
}

func (m *message) close() {
	sockio.Close(m.fds)
	m.fds = nil
}

// errCutOff says that the conversation ended too early.
var errCutOff = errors.New("the daemon ended while it handed over")

// send writes a message. fds stay the caller's.
func send(c *net.UnixConn, kind byte, content any, fds []int) error {
	body, err := json.Marshal(content)
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)))
	if _, err := sockio.WriteRights(c, head, fds...); err != nil {
		return err
	}
	_, err = c.Write(body)
	return err
}

// receive reads one message. With an error nothing is left open.
func receive(c *net.UnixConn) (*message, error) {
	m := new(message)
	if err := m.read(c); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *message) read(c *net.UnixConn) error {
	// One byte, so that the descriptors beside the next message are not lost with it.
	var kind [1]byte
	got, err := sockio.ReadRights(c, kind[:], maxRights)
	if err != nil || got.N == 0 {
		return errors.Join(errCutOff, err)
	}
	m.kind, m.fds = kind[0], got.FDs
	if got.Truncated {
		return errors.New(
			"not all descriptors arrived that the running daemon hands over: raise the limit on open files (ulimit -n)",
		)
	}
	var length [lengthLen]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return errors.Join(errCutOff, err)
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > maxBody {
		return fmt.Errorf("the running daemon hands over something of %d bytes", size)
	}
	m.body = make([]byte, size)
	if _, err := io.ReadFull(c, m.body); err != nil {
		return errors.Join(errCutOff, err)
	}
	return nil
}

// into puts the descriptors of a message kindFDs into s.
func (m *message) into(s *Set) error {
	var ids []ID
	if err := json.Unmarshal(m.body, &ids); err != nil {
		return fmt.Errorf("what the running daemon hands over cannot be read: %w", err)
	}
	if len(ids) != len(m.fds) {
		return fmt.Errorf("%d descriptors were handed over as %d", len(m.fds), len(ids))
	}
	for i, id := range ids {
		s.Put(id, m.fds[i])
	}
	m.fds = nil
	return nil
}

// flows are the connections of a message kindFlows.
func (m *message) flows() ([]Flow, error) {
	var flows []Flow
	if err := json.Unmarshal(m.body, &flows); err != nil {
		return nil, fmt.Errorf("the connections that the running daemon hands over cannot be read: %w", err)
	}
	fds := m.fds
	for i := range flows {
		n := flows[i].Count
		if n < 0 || n > len(fds) {
			return nil, fmt.Errorf(
				"%d descriptors were handed over, too few for %d connections",
				len(m.fds),
				len(flows),
			)
		}
		flows[i].FDs, fds = fds[:n:n], fds[n:]
	}
	if len(fds) > 0 {
		return nil, fmt.Errorf("%d descriptors were handed over, too many for %d connections", len(m.fds), len(flows))
	}
	m.fds = nil
	return flows, nil
}
