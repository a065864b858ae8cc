package capture

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// Types of blocks (draft-ietf-opsawg-pcapng, section 4).
const (
	blockSection    = 0x0a0d0d0a
	blockInterface  = 1
	blockNames      = 4
	blockStatistics = 5
	blockPacket     = 6
)

// Options of blocks (the same, sections 3.5 and 4).
const (
	optEnd     = 0
	optComment = 1

	shbApplication = 4

	idbName        = 2
	idbDescription = 3
	idbMAC         = 6
	idbResolution  = 9
	idbFilter      = 11

	epbFlags = 2

	isbStart    = 2
	isbEnd      = 3
	isbReceived = 4
	isbDropped  = 5
	isbAccepted = 6

	nrbIPv4 = 1
	nrbIPv6 = 2
)

const (
	byteOrderMagic = 0x1a2b3c4d
	linkEthernet   = 1 // LINKTYPE_ETHERNET
	nanoseconds    = 9 // of if_tsresol: 10^-9 s
	flagInbound    = 1 // of epb_flags, bits 0 and 1
	flagOutbound   = 2
)

// writer writes blocks. Numbers are little-endian, whatever the machine.
type writer struct {
	w   io.Writer
	buf []byte // the block that is being made
}

var order = binary.LittleEndian

// begin begins a block; end writes it.
func (w *writer) begin(kind uint32) {
	w.buf = order.AppendUint32(w.buf[:0], kind)
	w.buf = order.AppendUint32(w.buf, 0) // the length, set by end
}

func (w *writer) end() error {
	n := uint32(len(w.buf) + 4)
	w.buf = order.AppendUint32(w.buf, n)
	order.PutUint32(w.buf[4:], n)
	_, err := w.w.Write(w.buf)
	return err
}

// pad makes what was written end at four bytes.
func (w *writer) pad() {
	for len(w.buf)%4 != 0 {
		w.buf = append(w.buf, 0)
	}
}

// option adds one; an empty one is left out.
func (w *writer) option(code uint16, value []byte) {
	if len(value) == 0 {
		return
	}
	value = value[:min(len(value), 1<<15)]
	w.buf = order.AppendUint16(w.buf, code)
	w.buf = order.AppendUint16(w.buf, uint16(len(value)))
	w.buf = append(w.buf, value...)
	w.pad()
}

func (w *writer) number(code uint16, n uint64) { w.option(code, order.AppendUint64(nil, n)) }

func (w *writer) endOptions() { w.buf = append(w.buf, 0, 0, 0, 0) }

// section begins the stream.
func (w *writer) section(application, comment string) error {
	w.begin(blockSection)
	w.buf = order.AppendUint32(w.buf, byteOrderMagic)
	w.buf = order.AppendUint16(w.buf, 1) // version 1.0
	w.buf = order.AppendUint16(w.buf, 0)
	w.buf = order.AppendUint64(w.buf, ^uint64(0)) // the section's length is not known
	w.option(shbApplication, []byte(application))
	w.option(optComment, []byte(comment))
	w.endOptions()
	return w.end()
}

// endpoint describes one, and gives its addresses its container's name.
func (w *writer) endpoint(i Interface, snaplen int, filter string) error {
	w.begin(blockInterface)
	w.buf = order.AppendUint16(w.buf, linkEthernet)
	w.buf = order.AppendUint16(w.buf, 0)
	w.buf = order.AppendUint32(w.buf, uint32(snaplen))
	w.option(idbName, []byte(i.Name()))
	w.option(idbDescription, []byte(i.describe()))
	w.option(idbMAC, i.MAC)
	w.option(idbResolution, []byte{nanoseconds})
	if filter != "" {
		w.option(idbFilter, append([]byte{0}, filter...)) // 0: as text
	}
	w.option(optComment, fmt.Appendf(nil, "container=%s id=%s network=%s", i.Container, i.ID, i.Network))
	w.endOptions()
	if err := w.end(); err != nil || len(i.Addrs) == 0 || i.Container == "" {
		return err
	}
	w.begin(blockNames)
	for _, a := range i.Addrs {
		w.name(a, i.Container)
	}
	w.buf = append(w.buf, 0, 0, 0, 0) // nrb_record_end
	w.endOptions()
	return w.end()
}

func (w *writer) name(a netip.Addr, name string) {
	kind := uint16(nrbIPv4)
	if a.Is6() {
		kind = nrbIPv6
	}
	w.option(kind, append(append(a.AsSlice(), name...), 0)) // records have the form of options
}

// time adds a time in nanoseconds, its upper half first.
func (w *writer) time(t time.Time) {
	n := uint64(t.UnixNano())
	w.buf = order.AppendUint32(w.buf, uint32(n>>32))
	w.buf = order.AppendUint32(w.buf, uint32(n))
}

// packet writes a frame, of which data is what was kept.
func (w *writer) packet(index uint32, f frame) error {
	w.begin(blockPacket)
	w.buf = order.AppendUint32(w.buf, index)
	w.time(f.at)
	w.buf = order.AppendUint32(w.buf, uint32(len(f.data)))
	w.buf = order.AppendUint32(w.buf, uint32(f.length))
	w.buf = append(w.buf, f.data...)
	w.pad()
	flags := uint32(flagInbound)
	if f.out {
		flags = flagOutbound
	}
	w.option(epbFlags, order.AppendUint32(nil, flags))
	w.endOptions()
	return w.end()
}

// statistics writes what was counted of an endpoint.
func (w *writer) statistics(index uint32, began time.Time, c Counts) error {
	now := time.Now()
	w.begin(blockStatistics)
	w.buf = order.AppendUint32(w.buf, index)
	w.time(now)
	for _, t := range []struct {
		code uint16
		at   time.Time
	}{{isbStart, began}, {isbEnd, now}} {
		n := uint64(t.at.UnixNano())
		b := order.AppendUint32(nil, uint32(n>>32))
		w.option(t.code, order.AppendUint32(b, uint32(n)))
	}
	w.number(isbReceived, c.Received)
	w.number(isbDropped, c.Lost)
	w.number(isbAccepted, c.Accepted)
	w.endOptions()
	return w.end()
}
