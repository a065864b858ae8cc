package sockio

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxDatagram is the largest UDP payload over IPv4, in bytes: 65535 - 20 - 8.
const MaxDatagram = 65507

// batchSize is how many datagrams one system call reads at most, and so how many reach a container as one super-frame:
// no more pieces than a TAP writes without copying (32, package tap), and no more than 1 MiB of buffers.
const batchSize = 16

// mmsghdr is struct mmsghdr, include/linux/socket.h.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// rxBatch is the memory for reading several datagrams at once (recvmmsg(2)).
type rxBatch struct {
	messages [batchSize]mmsghdr
	vectors  [batchSize]unix.Iovec
	from     [batchSize]RawAddr
	control  [batchSize][96]byte // pktinfo of either family, a segment size and a count of what was lost fit
	data     [batchSize][MaxDatagram + 1]byte
	pieces   [batchSize][]byte // of data, what datagrams have
	used     int               // messages that are not ready to be filled
}

var rxBatches = sync.Pool{New: func() any { return &rxBatch{used: batchSize} }}

// receive reads what is there, at most batchSize datagrams.
func (b *rxBatch) receive(fd int) (int, error) {
	for i := range b.messages[:b.used] {
		b.vectors[i].Base = &b.data[i][0]
		b.vectors[i].SetLen(len(b.data[i]))
		h := &b.messages[i].hdr
		*h = unix.Msghdr{
			Name:    (*byte)(unsafe.Pointer(&b.from[i].space)),
			Namelen: unix.SizeofSockaddrInet6,
			Iov:     &b.vectors[i],
		}
		h.SetIovlen(1)
		h.Control = &b.control[i][0]
		h.SetControllen(len(b.control[i]))
	}
	messages := uintptr(unsafe.Pointer(&b.messages))
	for {
		n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), messages, batchSize, unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			b.used = int(n)
			return b.used, nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Datagram is what one message brought, or several messages of the same sender.
type Datagram struct {
	Payload [][]byte // a message each
	Size    int      // bytes in all
	GSOSize int      // if not 0, Payload holds datagrams of that many bytes, the last may be shorter
	From    netip.AddrPort
	Local   netip.Addr // whom it was sent to; the zero address unless the socket was told to say it (TellLocal)
	Lost    uint32     // how many at least, of whatever sender, were lost since this was last said (CountLost)

	lostEver uint32 // since the socket was made; 0: not said
}

// Count is how many datagrams they are.
func (d *Datagram) Count() uint64 { return Segments(d.Size, d.GSOSize) }

// Segments is how many datagrams of a segment's size there are in size bytes.
func Segments(size, segment int) uint64 {
	if segment <= 0 || segment >= size {
		return 1
	}
	return uint64((size + segment - 1) / segment)
}

// datagram is the i-th that was received.
func (b *rxBatch) datagram(i int) Datagram {
	b.pieces[i] = b.data[i][:b.messages[i].n]
	d := Datagram{Payload: b.pieces[i : i+1], Size: len(b.pieces[i]), From: b.from[i].AddrPort()}
	n := b.messages[i].hdr.Controllen
	for c := b.control[i][:n]; len(c) >= unix.SizeofCmsghdr; {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		if int(h.Len) < unix.SizeofCmsghdr || int(h.Len) > len(c) {
			break
		}
		d.setControl(h, c[unix.SizeofCmsghdr:h.Len])
		c = c[min(unix.CmsgSpace(int(h.Len)-unix.SizeofCmsghdr), len(c)):]
	}
	return d
}

// setControl takes over what a control message says of the datagram.
func (d *Datagram) setControl(h *unix.Cmsghdr, v []byte) {
	switch {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(v) >= unix.SizeofInet4Pktinfo:
		d.Local = netip.AddrFrom4([4]byte(v[4:8])) // ipi_spec_dst: of the reply, an own address even for a broadcast
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(v) >= unix.SizeofInet6Pktinfo:
		d.Local = netip.AddrFrom16([16]byte(v[:16]))
	case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(v) >= 4:
		d.GSOSize = int(int32(binary.NativeEndian.Uint32(v)))
	case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(v) >= 4:
		d.lostEver = binary.NativeEndian.Uint32(v)
	}
}

// run is the i-th of n datagrams and those behind it that are as long and of the same sender, of which the last may be
// shorter: together they make one super-frame. The second result is how many they are.
func (b *rxBatch) run(i, n int) (Datagram, int) {
	d := b.datagram(i)
	if d.GSOSize != 0 || d.Size == 0 {
		return d, 1
	}
	one := d.Size
	for k := i + 1; k < n; k++ {
		next := b.datagram(k)
		fits := next.GSOSize == 0 && next.Size > 0 && next.Size <= one && d.Size+next.Size <= MaxDatagram-20
		if !fits || next.From != d.From || next.Local != d.Local {
			break
		}
		d.Payload, d.Size, d.GSOSize = b.pieces[i:k+1], d.Size+next.Size, one
		if next.Size < one {
			break
		}
	}
	return d, len(d.Payload)
}

// lostSince is how many more datagrams were lost than when it was last asked, where the kernel says how many were ever.
func (s *Socket) lostSince(ever uint32) uint32 {
	if ever == 0 {
		return 0
	}
	return ever - s.lost.Swap(ever)
}

// ReceiveAll hands each waiting datagram to f, but no more than a few batches, so that others have their turn. A
// datagram is valid until f returns. The first error that is not "nothing there" is returned.
func (s *Socket) ReceiveAll(f func(Datagram)) error {
	b := rxBatches.Get().(*rxBatch)
	defer rxBatches.Put(b)
	for range 4 {
		n := 0
		err := s.Use(func(fd int) (err error) { n, err = b.receive(fd); return err })
		if err != nil {
			if errors.Is(err, unix.EAGAIN) {
				return nil
			}
			return err
		}
		for i := 0; i < n; {
			d, count := b.run(i, n)
			if i == 0 {
				d.Lost = s.lostSince(b.datagram(n - 1).lostEver) // the newest knows of them all
			}
			f(d)
			i += count
		}
		if n < batchSize {
			return nil
		}
	}
	return nil
}
