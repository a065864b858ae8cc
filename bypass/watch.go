package bypass

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// A watch is made of descriptors that were opened in the sandbox, each of which says something of its own namespace to
// its reader: netlink sockets that are members of the groups for nf_tables and for queues, and the lists of
// iptables-legacy's tables, which nobody announces.

// netlinkGroups are what is announced.
var netlinkGroups = [...]struct {
	protocol, group int
}{
	{unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES},
	{unix.NETLINK_ROUTE, unix.RTNLGRP_TC},
}

// openWatch opens the descriptors of a watch in the network namespace that this process is in.
func openWatch() (fds []int, err error) {
	defer func() {
		if err != nil {
			closeAll(fds)
			fds = nil
		}
	}()
	for _, g := range netlinkGroups {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, g.protocol)
		if errors.Is(err, unix.EPROTONOSUPPORT) {
			continue // this kernel has no such thing, so no rules either
		}
		if err != nil {
			return fds, os.NewSyscallError("socket", err)
		}
		fds = append(fds, fd)
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fds, os.NewSyscallError("bind", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g.group); err != nil {
			return fds, os.NewSyscallError("setsockopt", err)
		}
	}
	for _, name := range legacyNames {
		fd, err := unix.Open("/proc/net/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

// watch implements Watch. Its caller does not call it from two goroutines at once.
type watch struct {
	sockets []int
	lists   []int    // of iptables-legacy's tables
	texts   []string // what they said last
}

// watchBuffer is room for the kernel's largest announcement, in bytes (NLMSG_GOODSIZE, 8 KiB at most).
const watchBuffer = 16 << 10

// buffers are shared by all watches, since each is read for a moment only.
var buffers = sync.Pool{New: func() any { b := make([]byte, watchBuffer); return &b }}

// newWatch takes over the descriptors of a watch.
func newWatch(fds []int) *watch {
	w := new(watch)
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			w.sockets = append(w.sockets, fd)
			continue
		}
		w.lists = append(w.lists, fd)
	}
	w.texts = make([]string, len(w.lists))
	for i, fd := range w.lists {
		w.texts[i] = readList(fd)
	}
	return w
}

// readList is the text of a list of tables, a few short names.
func readList(fd int) string {
	var buf [256]byte
	n, err := unix.Pread(fd, buf[:], 0)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// Changed implements Watch.
func (w *watch) Changed() bool {
	changed := false
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for _, fd := range w.sockets {
		for {
			n, err := sockio.Read(fd, *b)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil { // ENOBUFS: there was more than it could hold
				changed = true
				if !errors.Is(err, unix.ENOBUFS) {
					break
				}
				continue
			}
			changed = changed || concernsContainer((*b)[:n])
		}
	}
	for i, fd := range w.lists {
		if text := readList(fd); text != w.texts[i] {
			w.texts[i], changed = text, true
		}
	}
	return changed
}

// Close implements Watch.
func (w *watch) Close() {
	closeAll(w.sockets)
	closeAll(w.lists)
	w.sockets, w.lists, w.texts = nil, nil, nil
}

// Of struct nlmsghdr and nfgenmsg (include/uapi/linux/netlink.h, netfilter/nfnetlink.h), in bytes, and of a message's
// attributes: the first is the name of the table that it is about, in each message but one, which announces
// generations.
const (
	nlmsgHeader = 16
	nfgenHeader = 4
	attrHeader  = 4
	attrTable   = 1
)

// concernsContainer says whether announcements are of something else than usernet's own tables.
func concernsContainer(b []byte) bool {
	ne := binary.NativeEndian
	for len(b) >= nlmsgHeader {
		length, kind := ne.Uint32(b), ne.Uint16(b[4:])
		if length < nlmsgHeader || uint64(length) > uint64(len(b)) {
			return true
		}
		if !isOwn(kind, b[nlmsgHeader:length]) {
			return true
		}
		b = b[min(len(b), int(length+3)&^3):]
	}
	return false
}

// isOwn says whether an announcement is of what usernet itself does to its tables, or of a generation.
func isOwn(kind uint16, body []byte) bool {
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	message := kind & 0xff
	if message == unix.NFT_MSG_NEWGEN {
		return true // it follows what it is the generation of
	}
	if len(body) < nfgenHeader+attrHeader {
		return false
	}
	attr := body[nfgenHeader:]
	length, is := int(binary.NativeEndian.Uint16(attr)), binary.NativeEndian.Uint16(attr[2:])
	if is != attrTable || length < attrHeader || length > len(attr) {
		return false
	}
	name := string(bytes.TrimRight(attr[attrHeader:length], "\x00"))
	if name == tableName { // the bypass only adds to its table, and a container may have removed it
		return message != unix.NFT_MSG_DELTABLE && message != unix.NFT_MSG_DELCHAIN && message != unix.NFT_MSG_DELRULE
	}
	return strings.HasPrefix(name, ownTables)
}
