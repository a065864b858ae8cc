package vmlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	vswitch "github.com/usernet/usernet/switch"
)

const (
	// maxFrame is the longest frame that a guest may send.
	maxFrame = vswitch.EthernetHeaderLen + vswitch.MaxPayload
	// streamBuffer holds one frame of any length, and many of common ones.
	streamBuffer = 2 * (lengthLen + maxFrame)
	// quota is how many frames of one guest are read before others have their turn.
	quota = 64
)

// errLength is for a stream that is out of step, or is none of frames.
var errLength = errors.New("no frame is that long")

// reader gives a port the frames of a guest.
type reader struct {
	link  *Link
	guest *session
	port  *vswitch.Port
	pace  *vswitch.Pacer
	frame vswitch.Frame
	used  int                // frames since the last round
	emit  func(frame []byte) // deliver, made once
}

func newReader(l *Link, s *session, port *vswitch.Port) *reader {
	r := &reader{link: l, guest: s, port: port, pace: port.Pacer()}
	r.emit = r.deliver
	return r
}

func (r *reader) release() { r.frame.Release() }

func (r *reader) run(kind Kind) error {
	if kind == Stream {
		return r.stream()
	}
	return r.packets()
}

// stream reads until the connection ends. Only whole frames go to the port.
func (r *reader) stream() error {
	buf := make([]byte, streamBuffer)
	have := 0
	for {
		n, err := r.guest.conn.Read(buf[have:])
		have += n
		used, bad := decode(buf[:have], r.emit)
		have = copy(buf, buf[used:have])
		r.round()
		switch {
		case bad != nil:
			return bad
		case errors.Is(err, io.EOF) && have > 0:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
}

// decode calls emit with each whole frame at the beginning of b, and returns how many bytes these are. The frames are
// valid until emit returns.
func decode(b []byte, emit func(frame []byte)) (used int, err error) {
	for len(b)-used >= lengthLen {
		n := binary.BigEndian.Uint32(b[used:])
		if n > maxFrame {
			return used, fmt.Errorf("%w: %d bytes; the socket is for frames behind a length of 4 bytes", errLength, n)
		}
		end := used + lengthLen + int(n)
		if end > len(b) {
			break
		}
		emit(b[used+lengthLen : end])
		used = end
	}
	return used, nil
}

// deliver gives the port a copy of a frame.
func (r *reader) deliver(frame []byte) {
	if len(frame) <= vswitch.EthernetHeaderLen {
		r.port.CountDrop(vswitch.DropShort)
		return
	}
	clear(r.frame.Header[:vswitch.VirtioHeaderLen])
	copy(r.frame.Ethernet(), frame)
	r.receive(copy(r.frame.Buffer(), frame[vswitch.EthernetHeaderLen:]))
}

// receive gives the port the frame whose header and so much payload are there.
func (r *reader) receive(payload int) {
	r.checkMAC()
	r.frame.MorePending = true
	r.frame.Fill(payload)
	r.port.Receive(&r.frame)
	r.pace.Take(vswitch.EthernetHeaderLen + payload)
	if r.used++; r.used >= quota {
		r.round()
		runtime.Gosched()
	}
}

// round ends a round of frames: what others have gathered goes on, and a guest that floods waits.
func (r *reader) round() {
	r.used = 0
	r.port.Flush()
	if pause := r.pace.Round(&r.frame); pause > 0 {
		r.pace.Pause(pause)
	}
}

// checkMAC logs a guest whose frames the port's guard will drop, and what to do.
func (r *reader) checkMAC() {
	src := r.frame.Ethernet()[6:12]
	if r.link.cfg.MAC == nil || bytes.Equal(src, r.link.cfg.MAC) {
		return
	}
	r.link.warned.Do(func() {
		r.link.log.Warn("the virtual machine sends from a MAC address that is not its own: start it with that of its "+
			"endpoint, or attach it with --mac-address", "sends", net.HardwareAddr(bytes.Clone(src)), "endpoint",
			r.link.cfg.MAC)
	})
}

// packets reads records or datagrams until the socket is closed or the guest is gone.
func (r *reader) packets() error {
	raw, err := r.guest.conn.SyscallConn()
	if err != nil {
		return err
	}
	var packet packetReader
	var end error
	err = raw.Read(func(fd uintptr) bool {
		for {
			size, errno := packet.read(fd, r.frame.Ethernet(), r.frame.Buffer())
			switch {
			case errno == unix.EINTR:
				continue
			case errno == unix.EAGAIN:
				r.round()
				r.frame.Release()
				return false
			case errno != 0:
				end = errno
				return true
			case size == 0 && !r.guest.datagrams:
				end = io.EOF
				return true
			}
			r.packet(&packet.from, size)
			if r.used == 0 && r.link.hasStopped() {
				return true // a flood has no end
			}
		}
	})
	return errors.Join(err, end)
}

// newPeer tells where the guest sends from now.
func (r *reader) newPeer(path string) {
	if !filepath.IsAbs(path) {
		r.link.warned.Do(func() {
			r.link.log.Warn("the virtual machine's own socket has a relative path, at which it is not found: start it with "+
				"an absolute one", "path", path)
		})
	}
	if r.link.cfg.NewPeer != nil {
		r.link.cfg.NewPeer(path)
	}
}

// packet gives the port a record or datagram that was read.
func (r *reader) packet(from *sockaddr, size int) {
	if r.guest.datagrams && r.guest.peer.update(from) {
		r.newPeer(strings.Clone(from.path()))
	}
	payload := size - vswitch.EthernetHeaderLen
	switch {
	case payload <= 0: // also the greeting of old versions of vfkit, four bytes
		r.port.CountDrop(vswitch.DropShort)
	case payload > vswitch.MaxPayload:
		r.port.CountDrop(vswitch.DropMalformed)
	default:
		clear(r.frame.Header[:vswitch.VirtioHeaderLen])
		r.receive(payload)
	}
}
