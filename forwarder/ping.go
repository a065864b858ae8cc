package forwarder

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/stack"
)

// pingTimeout is how long a ping session without requests is kept; RFC 5508 REQ-2 wants 60 s at least.
const pingTimeout = 60 * time.Second

// echoKey keeps identifiers of different containers apart.
type echoKey struct {
	src netip.Addr
	id  uint16
	v6  bool
}

// pinger is the ping socket of one container's identifier (icmp(7), "ping sockets"); the kernel gives it an identifier
// of its own, which is replaced in replies.
type pinger struct {
	f       *Forwarder
	key     echoKey
	file    *os.File
	last    atomic.Int64
	created time.Time
	once    sync.Once
	in, out atomic.Uint64
}

// HandleEcho sends a container's echo request on.
func (f *Forwarder) HandleEcho(p stack.Packet) bool {
	target, err := f.hostTarget(p.Src.Addr(), p.Dst)
	if err != nil || len(p.Payload) < 8 {
		f.unreachable(p)
		return true
	}
	key := echoKey{p.Src.Addr(), binary.BigEndian.Uint16(p.Payload[4:]), target.Addr().Is6()}
	f.mu.Lock()
	s := f.echo[key]
	f.mu.Unlock()
	if s == nil {
		if s = f.newPinger(key); s == nil {
			return true
		}
	}
	s.last.Store(time.Now().UnixNano())
	raw, err := s.file.SyscallConn()
	if err != nil {
		return true
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendto(int(fd), p.Payload, 0, sockaddr(netip.AddrPortFrom(target.Addr(), 0)))
		return true
	})
	if err == nil && sendErr != nil {
		f.unreachable(p)
	}
	s.out.Add(1)
	return true
}

// unreachable answers an echo request with ICMP network unreachable.
func (f *Forwarder) unreachable(p stack.Packet) {
	gw := f.cfg.Gateway4
	head := []byte{3, 0, 0, 0, 0, 0, 0, 0}
	if p.Src.Addr().Is6() {
		gw, head = f.cfg.Gateway6, []byte{1, 0, 0, 0, 0, 0, 0, 0}
	}
	if gw.IsValid() && len(p.Original) > 0 {
		_ = f.cfg.Inside.WriteICMP(gw, p.Src.Addr(), append(head, p.Original...))
	}
}

func (f *Forwarder) newPinger(key echoKey) *pinger {
	sessions := func(u *usage) *int { return &u.echo }
	if !f.take(key.src, sessions, f.cfg.Limits.Echo) {
		f.counters[countEchoLimit].Add(1)
		return nil
	}
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if key.v6 {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		f.give(key.src, sessions)
		return nil
	}
	s := &pinger{f: f, key: key, file: os.NewFile(uintptr(fd), "ping"), created: time.Now()}
	s.last.Store(time.Now().UnixNano())
	f.mu.Lock()
	if f.closed || f.echo[key] != nil {
		other := f.echo[key]
		f.mu.Unlock()
		_ = s.file.Close()
		f.give(key.src, sessions)
		return other
	}
	f.echo[key] = s
	f.wg.Add(1)
	f.mu.Unlock()
	f.counters[countEcho].Add(1)
	go s.replies()
	return s
}

func (s *pinger) close() { s.once.Do(func() { _ = s.file.Close() }) }

func (s *pinger) replies() {
	defer func() {
		s.close()
		s.f.mu.Lock()
		delete(s.f.echo, s.key)
		s.f.mu.Unlock()
		s.f.give(s.key.src, func(u *usage) *int { return &u.echo })
		s.f.wg.Done()
	}()
	buf := make([]byte, maxDatagram)
	raw, err := s.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		idle := time.Unix(0, s.last.Load()).Add(pingTimeout)
		if time.Now().After(idle) {
			return
		}
		_ = s.file.SetReadDeadline(idle)
		var n int
		var from unix.Sockaddr
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), buf, 0)
			return rerr != unix.EAGAIN
		})
		if os.IsTimeout(err) {
			continue
		}
		if err != nil {
			return
		}
		if rerr != nil || n < 8 {
			continue
		}
		var src netip.Addr
		switch sa := from.(type) {
		case *unix.SockaddrInet4:
			src = netip.AddrFrom4(sa.Addr)
		case *unix.SockaddrInet6:
			src = netip.AddrFrom16(sa.Addr)
		}
		binary.BigEndian.PutUint16(buf[4:], s.key.id)
		s.in.Add(1)
		_ = s.f.cfg.Inside.WriteICMP(src, s.key.src, append([]byte(nil), buf[:n]...))
	}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// hostOwn says whether a is an address of the host itself, whose clients have to appear as the gateway.
func hostOwn(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, x := range addrs {
		if n, ok := x.(*net.IPNet); ok {
			if own, ok := netip.AddrFromSlice(n.IP); ok && own.Unmap() == a {
				return true
			}
		}
	}
	return false
}
