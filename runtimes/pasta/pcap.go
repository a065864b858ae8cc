package pasta

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	vswitch "github.com/usernet/usernet/switch"
)

// The format of pcap files (draft-ietf-opsawg-pcap): the number that a file begins with, its version, and the link type
// of Ethernet. Fields are in this machine's byte order, which a reader finds out by the number.
const (
	pcapMagic    = 0xa1b2c3d4 // times in microseconds
	pcapMajor    = 2
	pcapMinor    = 4
	pcapEthernet = 1
)

// pcapLongest is the longest frame: a super-frame that the kernel has not cut into segments yet.
const pcapLongest = vswitch.EthernetHeaderLen + vswitch.MaxPayload

// pcapQueue is how many frames wait to be written; others are left out, since a slow disk must not hold up the network.
const pcapQueue = 1024

// capture writes frames to a file.
type capture struct {
	file  *os.File
	queue chan []byte // records, ready to be written; closed by close
	lost  atomic.Uint64
	done  chan struct{} // closed when all is written; err is set then
	err   error
}

// newCapture begins a file at path.
func newCapture(path string) (*capture, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("couldn't open pcap file: %w", err)
	}
	c := &capture{file: f, queue: make(chan []byte, pcapQueue), done: make(chan struct{})}
	b := binary.NativeEndian.AppendUint32(nil, pcapMagic)
	b = binary.NativeEndian.AppendUint16(b, pcapMajor)
	b = binary.NativeEndian.AppendUint16(b, pcapMinor)
	b = append(b, make([]byte, 8)...) // time zone and accuracy, which nobody uses
	b = binary.NativeEndian.AppendUint32(b, pcapLongest)
	b = binary.NativeEndian.AppendUint32(b, pcapEthernet)
	if _, err := f.Write(b); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	go c.write()
	return c, nil
}

// show takes a frame. It does not wait.
func (c *capture) show(_ bool, f *vswitch.Frame) {
	now := time.Now()
	size := len(f.Ethernet())
	for _, p := range f.Payload {
		size += len(p)
	}
	b := make([]byte, 0, 16+size)
	b = binary.NativeEndian.AppendUint32(b, uint32(now.Unix()))
	b = binary.NativeEndian.AppendUint32(b, uint32(now.Nanosecond()/1000))
	b = binary.NativeEndian.AppendUint32(b, uint32(size))
	b = binary.NativeEndian.AppendUint32(b, uint32(size))
	b = append(b, f.Ethernet()...)
	for _, p := range f.Payload {
		b = append(b, p...)
	}
	select {
	case c.queue <- b:
	default:
		c.lost.Add(1)
	}
}

// write writes what is shown until the queue is closed. What nobody waits behind is in the file at once.
func (c *capture) write() {
	defer close(c.done)
	w := bufio.NewWriter(c.file)
	for b := range c.queue {
		if _, err := w.Write(b); err != nil {
			c.err = err
		}
		if len(c.queue) == 0 {
			c.err = errors.Join(c.err, w.Flush())
		}
	}
	c.err = errors.Join(c.err, w.Flush(), c.file.Close())
}

// close ends the file, once nobody calls show any more, and says how many frames are not in it.
func (c *capture) close() (lost uint64, err error) {
	close(c.queue)
	<-c.done
	return c.lost.Load(), c.err
}
