package api

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// A handover is a stream of messages, each with descriptors beside its first byte, which is its kind. The first daemons
// knew five kinds, which are that byte and nothing more, and took every other as an error. All other kinds have a body: its
// length in four bytes, most significant first, then JSON. They are sent to who has said in a header of its request that
// bodies are understood, and who does not know a kind skips it and closes what came with it. So each daemon can take the
// place of one that is older or newer than itself.
const (
	kindAPI, kindPublished, kindInherited = 'a', 'p', 'i'
	kindEnd, kindTaken                    = 'e', 't' // what ends a handover, and the answer to that

	kindSandboxes = 's' // the body is a list of SandboxFile, one for each descriptor in their order
	kindFlows     = 'f' // the body is a list of FlowFiles, the descriptors are those of all; after kindTaken
	kindHTTP      = 'H' // never sent: the first byte of "HTTP/1.1", a refusal
)

// handoverHeader is in the request of a daemon that understands messages with a body.
const handoverHeader = "Usernet-Handover"

const (
	maxRights   = 253     // descriptors in one message (SCM_MAX_FD, include/net/scm.h)
	maxHandover = 1 << 20 // bytes in a body: more than maxRights descriptors need by far
)

// message is one message of a handover. Whoever receives it owns its descriptors.
type message struct {
	kind byte
	fds  []int
	body []byte
}

func (m *message) close() {
	for _, fd := range m.fds {
		_ = unix.Close(fd)
	}
	m.fds = nil
}

func sendRights(c *net.UnixConn, head []byte, fds []int) error {
	_, _, err := c.WriteMsgUnix(head, unix.UnixRights(fds...), nil)
	return err
}

func sendFiles(c *net.UnixConn, files []SandboxFile) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = f.FD
	}
	return sendBody(c, kindSandboxes, files, fds)
}

func sendBody(c *net.UnixConn, kind byte, content any, fds []int) error {
	body, err := json.Marshal(content)
	if err != nil {
		return err
	}
	if err := sendRights(c, binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body))), fds); err != nil {
		return err
	}
	_, err = c.Write(body)
	return err
}

// receiveMessage reads one message. With an error nothing is left open.
func receiveMessage(c *net.UnixConn) (*message, error) {
	m := new(message)
	if err := m.receive(c); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *message) receive(c *net.UnixConn) error {
	head, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(maxRights*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(head, oob)
	if err != nil || n == 0 {
		return errors.Join(errCutOff, err)
	}
	m.kind = head[0]
	if m.fds, err = receivedRights(oob[:oobn]); err != nil {
		return err
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return errors.New("not all descriptors arrived that the running daemon hands over: raise the limit on open files (ulimit -n)")
	}
	switch m.kind {
	case kindAPI, kindPublished, kindInherited, kindEnd:
		return nil
	case kindHTTP:
		return errors.New("the running daemon does not hand over: stop it, then start this one without --takeover")
	}
	var length [4]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return errors.Join(errCutOff, err)
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > maxHandover {
		return fmt.Errorf("the running daemon hands over something of %d bytes: stop it, then start this one without --takeover", size)
	}
	m.body = make([]byte, size)
	if _, err := io.ReadFull(c, m.body); err != nil {
		return errors.Join(errCutOff, err)
	}
	return nil
}

var errCutOff = errors.New("the daemon ended while it handed over")

// sandboxFiles puts descriptors and what they are together.
func (m *message) sandboxFiles() ([]SandboxFile, error) {
	var files []SandboxFile
	if err := json.Unmarshal(m.body, &files); err != nil {
		return nil, fmt.Errorf("what the running daemon hands over cannot be read: %w", err)
	}
	if len(files) != len(m.fds) {
		return nil, fmt.Errorf("%d descriptors were handed over as %d", len(m.fds), len(files))
	}
	for i := range files {
		files[i].FD = m.fds[i]
	}
	return files, nil
}

// flows puts descriptors and the connections that they are of together.
func (m *message) flows() ([]FlowFiles, error) {
	if m.kind != kindFlows {
		return nil, nil
	}
	var flows []FlowFiles
	if err := json.Unmarshal(m.body, &flows); err != nil {
		return nil, fmt.Errorf("the connections that the running daemon hands over cannot be read: %w", err)
	}
	fds := m.fds
	for i := range flows {
		n := flows[i].Count
		if n < 0 || n > len(fds) {
			return nil, fmt.Errorf("%d descriptors were handed over, too few for %d connections", len(m.fds), len(flows))
		}
		flows[i].FDs, fds = fds[:n:n], fds[n:]
	}
	if len(fds) > 0 {
		return nil, fmt.Errorf("%d descriptors were handed over, too many for %d connections", len(m.fds), len(flows))
	}
	return flows, nil
}

// receivedRights takes control messages apart. Descriptors in those before a damaged one are not lost.
func receivedRights(oob []byte) (all []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return all, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
		all = append(all, fds...)
	}
	return all, nil
}
