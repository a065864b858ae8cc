package forwarder

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxDatagram is the largest UDP payload over IPv4, in bytes: 65535 - 20 - 8.
const maxDatagram = 65507

// batchSize is how many datagrams one system call reads at most, and so how many reach the container as one super-frame: no
// more pieces than a TAP writes without copying (32, package tap), and no more than 1 MiB of buffers.
const batchSize = 16

// mmsghdr is struct mmsghdr, include/linux/socket.h.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// batch is the memory for reading several datagrams at once.
type batch struct {
	messages [batchSize]mmsghdr
	vectors  [batchSize]unix.Iovec
	from     [batchSize]rawAddr
	control  [batchSize][96]byte // pktinfo of either family and a segment size fit
	data     [batchSize][maxDatagram + 1]byte
	pieces   [batchSize][]byte // of data, what datagrams have
	used     int               // messages that are not ready to be filled
}

var batches = sync.Pool{New: func() any { return &batch{used: batchSize} }}

// receive reads what is there, at most batchSize datagrams.
func (b *batch) receive(fd int) (int, error) {
	for i := range b.messages[:b.used] {
		b.vectors[i].Base = &b.data[i][0]
		b.vectors[i].SetLen(len(b.data[i]))
		h := &b.messages[i].hdr
		*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&b.from[i].space)), Namelen: unix.SizeofSockaddrInet6, Iov: &b.vectors[i]}
		h.SetIovlen(1)
		h.Control = &b.control[i][0]
		h.SetControllen(len(b.control[i]))
	}
	for {
		n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.messages)), batchSize, unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			b.used = int(n)
			return b.used, nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// datagram is what one message brought, or several of the same sender. It is valid until the next receive.
type datagram struct {
	payload [][]byte // a message each
	size    int      // bytes in all
	segment int      // if not 0, the payload holds datagrams of that many bytes, the last may be shorter
	from    netip.AddrPort
	local   netip.Addr // whom it was sent to; the zero address unless the socket was told to say it
}

func (d *datagram) count() uint64 { return count(d.size, d.segment) }

// count is how many datagrams of a segment's size there are in size bytes.
func count(size, segment int) uint64 {
	if segment <= 0 || segment >= size {
		return 1
	}
	return uint64((size + segment - 1) / segment)
}

// datagram is the i-th that was received.
func (b *batch) datagram(i int) datagram {
	b.pieces[i] = b.data[i][:b.messages[i].n]
	d := datagram{payload: b.pieces[i : i+1], size: len(b.pieces[i]), from: b.from[i].get()}
	n := b.messages[i].hdr.Controllen
	for c := b.control[i][:n]; len(c) >= unix.SizeofCmsghdr; {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		if int(h.Len) < unix.SizeofCmsghdr || int(h.Len) > len(c) {
			break
		}
		v := c[unix.SizeofCmsghdr:h.Len]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(v) >= unix.SizeofInet4Pktinfo:
			d.local = netip.AddrFrom4([4]byte(v[4:8])) // ipi_spec_dst: of the reply, an own address even for a broadcast
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(v) >= unix.SizeofInet6Pktinfo:
			d.local = netip.AddrFrom16([16]byte(v[:16]))
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(v) >= 4:
			d.segment = int(int32(binary.NativeEndian.Uint32(v)))
		}
		c = c[min(unix.CmsgSpace(len(v)), len(c)):]
	}
	return d
}

// run is the i-th of n datagrams and those behind it that are as long and of the same sender, of which the last may be
// shorter: together they make one super-frame. The second result is how many they are.
func (b *batch) run(i, n int) (datagram, int) {
	d := b.datagram(i)
	if d.segment != 0 || d.size == 0 {
		return d, 1
	}
	one := d.size
	for k := i + 1; k < n; k++ {
		next := b.datagram(k)
		if next.segment != 0 || next.size == 0 || next.size > one || next.from != d.from || next.local != d.local || d.size+next.size > maxDatagram-20 {
			break
		}
		d.payload, d.size, d.segment = b.pieces[i:k+1], d.size+next.size, one
		if next.size < one {
			break
		}
	}
	return d, len(d.payload)
}

// receiveAll hands each waiting datagram to f, but no more than a few batches, so that others have their turn. The first
// error that is not "nothing there" is returned.
func (s *socket) receiveAll(f func(datagram)) error {
	b := batches.Get().(*batch)
	defer batches.Put(b)
	for range 4 {
		n := 0
		err := s.use(func(fd int) (err error) { n, err = b.receive(fd); return err })
		if err != nil {
			if errors.Is(err, unix.EAGAIN) {
				return nil
			}
			return err
		}
		for i := 0; i < n; {
			d, count := b.run(i, n)
			f(d)
			i += count
		}
		if n < batchSize {
			return nil
		}
	}
	return nil
}
