package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	vswitch "github.com/usernet/usernet/switch"
)

// Pipe is a Link whose other end is this process: a test, a virtual machine's socket, a packet of another protocol.
// Send and Receive exchange complete Ethernet frames without virtio headers; super-frames of other links are cut for
// it.
type Pipe struct {
	toNetwork chan []byte
	fromThere chan []byte

	stop, closed         chan struct{} // closed by Stop and by Close
	stopOnce, closedOnce sync.Once
	serving              sync.Mutex // held by Serve
}

var _ Link = (*Pipe)(nil)

// Errors of a Pipe.
var (
	errPipeFull  = errors.New("nobody receives at the other end of the pipe")
	errFrameSize = errors.New("no Ethernet frame")
)

// NewPipe makes one that holds up to depth frames in each direction. What comes from the network beyond that is lost,
// as on any network; what is sent to it waits.
func NewPipe(depth int) *Pipe {
	return &Pipe{
		toNetwork: make(chan []byte, depth),
		fromThere: make(chan []byte, depth),
		stop:      make(chan struct{}),
		closed:    make(chan struct{}),
	}
}

// Send gives the network a copy of a frame.
func (p *Pipe) Send(ctx context.Context, frame []byte) error {
	if len(frame) < vswitch.EthernetHeaderLen || len(frame) > vswitch.EthernetHeaderLen+vswitch.MaxPayload {
		return fmt.Errorf("%w: %d bytes", errFrameSize, len(frame))
	}
	select {
	case <-p.stop:
		return net.ErrClosed
	default:
	}
	select {
	case p.toNetwork <- append([]byte(nil), frame...):
		return nil
	case <-p.stop:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Receive returns the next frame from the network, which is the caller's.
func (p *Pipe) Receive(ctx context.Context) ([]byte, error) {
	select {
	case frame := <-p.fromThere:
		return frame, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// WriteFrame implements vswitch.Device.
func (p *Pipe) WriteFrame(f *vswitch.Frame) error {
	return f.Segments(func(frame []byte) error {
		select {
		case <-p.closed:
			return net.ErrClosed
		default:
		}
		select {
		case p.fromThere <- append([]byte(nil), frame...):
			return nil
		default:
			return errPipeFull
		}
	})
}

// Serve implements Link.
func (p *Pipe) Serve(port *vswitch.Port) error {
	p.serving.Lock()
	defer p.serving.Unlock()
	var f vswitch.Frame
	defer f.Release()
	for {
		select {
		case <-p.stop:
			return net.ErrClosed
		default:
		}
		select {
		case <-p.stop:
			return net.ErrClosed
		case frame := <-p.toNetwork:
			clear(f.Header[:vswitch.VirtioHeaderLen])
			copy(f.Ethernet(), frame)
			n := copy(f.Buffer(), frame[vswitch.EthernetHeaderLen:])
			f.Fill(n)
			port.Receive(&f)
		}
	}
}

// Stop implements Link.
func (p *Pipe) Stop() {
	p.stopOnce.Do(func() { close(p.stop) })
	p.serving.Lock()
	defer p.serving.Unlock() // locked to wait, not to hold
}

// Close implements Link.
func (p *Pipe) Close() error {
	p.closedOnce.Do(func() { close(p.closed) })
	p.stopOnce.Do(func() { close(p.stop) })
	return nil
}
