package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/switch/tap"
)

// Interface is a TAP to be made inside the sandbox.
type Interface struct {
	Name      string
	MAC       net.HardwareAddr
	MTU       int // bytes
	Addrs     []netip.Prefix
	LinkLocal []netip.Addr
	Offload   bool // super-frames; false makes a plain TAP
	IPv6      bool // false switches IPv6 off on the interface
	// Autoconf lets the interface take addresses and routes from router advertisements, beside Addrs.
	Autoconf bool
	// OwnRoutes has default routes be those of the request, and not those of router advertisements, and addresses that
	// the kernel makes be looked for on the link first.
	OwnRoutes bool
	// Valid and Preferred are for how long the IPv6 addresses of Addrs are; 0: for good.
	Valid, Preferred time.Duration
	// Given leaves the interface as it is, or, where there is none of its name, makes it and leaves all else to others.
	Given bool
	// Persistent has a Given one that is made outlive its descriptor, as all others do that are not Temporary.
	Persistent bool
	// Temporary has the interface go with its descriptor, unless it was there before.
	Temporary bool
}

// stays says whether the interface outlives its descriptor.
func (i Interface) stays() bool { return i.Persistent || !i.Given && !i.Temporary }

// Route is a route out of the sandbox. Without Via the destination is on the link.
type Route struct {
	Dst       netip.Prefix
	Via       netip.Addr
	Interface string
}

// Congestion says where what TCP sends from a namespace goes. The zero value changes nothing.
type Congestion struct {
	// Host is the default of the machine, where it is not for paths within it (sockio.PacedCongestion).
	Host string
	// Local says that it stays on the machine, up to the gateway or a neighbour. A namespace that has the machine's
	// default and no other interfaces than those of the request, all of them new, gets sockio.LocalCongestion. Not
	// Local, one that has that gets the machine's.
	Local bool
}

// CongestionOf is that of a namespace whose TCP stays on the machine, or does not.
func CongestionOf(local bool) Congestion {
	return Congestion{Host: sockio.PacedCongestion(), Local: local}
}

// Request is what the agent is to do, in this order: remove, add, routes, sockets. It can be repeated: interfaces that
// exist are opened again and stay as they are.
type Request struct {
	Add    []Interface
	Remove []string
	// DefaultRoutes replace the default routes over usernet's interfaces, unless nothing but sockets is asked for.
	DefaultRoutes []Route
	// Routes are set besides, in this order.
	Routes []Route
	// Local are IPv4 addresses that the loopback interface gets besides its own, and RemoveLocal those that it loses.
	Local, RemoveLocal []netip.Addr
	// Listen are the addresses at which to listen for TCP connections that begin in the sandbox. Addresses that are in
	// use there, or of a family that the sandbox lacks, are left out.
	Listen []netip.AddrPort
	// ListenPacket are the addresses at which to receive UDP datagrams, as Listen.
	ListenPacket []netip.AddrPort
	// StreamSockets is how many unconnected TCP sockets of the sandbox to make, of each family that it has.
	StreamSockets int
	// DatagramSockets is how many unconnected UDP sockets of the sandbox to make, of each family that it has.
	DatagramSockets int
	// Congestion is what TCP's congestion control becomes in the namespace.
	Congestion Congestion
	// SockDiag asks for a socket that tells what listens in the sandbox (sock_diag(7)).
	SockDiag bool
	// DNSStub is where the sandbox finds a DNS server, by UDP and TCP; zero: nowhere. The sockets have another port
	// where the kernel's packet filter can lead to them.
	DNSStub netip.AddrPort
	// Try are ways to be tried. Where there are some, nothing else is done.
	Try []Trial
	// NoDNSStub takes away what leads to a stub, whose sockets the caller closes.
	NoDNSStub bool
}

// onlyGiven says whether nothing of the namespace is to be changed but interfaces that others configure.
func (r *Request) onlyGiven() bool {
	for _, i := range r.Add {
		if !i.Given {
			return false
		}
	}
	return len(r.Add) > 0 && len(r.DefaultRoutes) == 0 && len(r.Routes) == 0
}

// onlySockets says whether nothing of the namespace is to be changed: its routes stay as they are.
func (r *Request) onlySockets() bool {
	sockets := len(r.Listen) + len(r.ListenPacket) + r.StreamSockets + r.DatagramSockets
	changes := len(r.Add) + len(r.Remove) + len(r.DefaultRoutes) + len(r.Routes)
	return (sockets > 0 || r.SockDiag) && changes == 0
}

// Reply holds what came out of the sandbox. The caller owns it all.
type Reply struct {
	TAPs        map[string]*os.File // by interface name
	DNSPacket   net.PacketConn      // nil without DNSStub
	DNSListener net.Listener
	// DNSRules keeps the rules that lead to them in place where they have another port than DNSStub says; nil: they
	// have not.
	DNSRules *os.File
	// Listeners are those of Request.Listen.
	Listeners []net.Listener
	// Packets are those of Request.ListenPacket.
	Packets []net.PacketConn
	// Streams are those of Request.StreamSockets, by family: IPv4, then IPv6.
	Streams [2][]*os.File
	// Datagrams are those of Request.DatagramSockets, by family.
	Datagrams [2][]*os.File
	SockDiag  *os.File // nil where it was not asked for
	Tried     []Tried  // what came of Request.Try
}

// answer is what the agent sends: an error, or the names of the descriptors that come with it.
type answer struct {
	Error string
	Files []string
	Tried []Tried
}

// Names of what is no interface in an answer; no interface has a name with a slash.
const (
	fileDNSPacket   = "dns/udp"
	fileDNSListener = "dns/tcp"
	fileDNSRules    = "dns/rules"
	fileListener    = "tcp/listener"
	filePacket      = "udp/socket"
	fileSockDiag    = "sock/diag"
	fileStream4     = "tcp/ipv4"
	fileStream6     = "tcp/ipv6"
	fileDatagram4   = "udp/ipv4"
	fileDatagram6   = "udp/ipv6"
)

// maxMessage bounds a message between the daemon and the agent, in bytes.
const maxMessage = 256 << 10

// Configure sends an agent into the sandbox t to carry out r. On an error what it began is undone.
func (d *Helper) Configure(ctx context.Context, t Target, r Request) (*Reply, error) {
	if d == nil {
		if reply, did, err := configureHere(t, r); did || err != nil {
			if err == nil {
				err = reply.keep(r)
			}
			return reply, err
		}
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	agent, err := d.enter(t, roleAgent, theirs)
	_ = theirs.Close()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, agent.kill)
	reply, err := converse(ours, r)
	_ = ours.Close()
	text, wait := agent.wait()
	stop()
	if ctx.Err() != nil {
		err = errors.Join(fmt.Errorf("the sandbox was not entered in time: %w", ctx.Err()), err)
	}
	if err == nil {
		if err = reply.keep(r); err == nil {
			return reply, nil
		}
	}
	reply.close()
	if text != "" {
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	if errors.Is(err, errNoAnswer) && wait != nil {
		return nil, fmt.Errorf("%w: %w", err, wait)
	}
	return nil, err
}

var errNoAnswer = errors.New("the sandbox could not be entered")

// converse sends r, and returns the agent's answer.
func converse(c *net.UnixConn, r Request) (*Reply, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(b); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	buf := make([]byte, maxMessage)
	n, files, err := readFiles(c, buf)
	if err != nil || n == 0 {
		return nil, errNoAnswer
	}
	var a answer
	if err := json.Unmarshal(buf[:n], &a); err != nil || len(a.Files) != len(files) {
		closeAll(files)
		return nil, errors.New("the agent's answer makes no sense")
	}
	if a.Error != "" {
		closeAll(files)
		return nil, errors.New(a.Error)
	}
	reply, err := sortFiles(a.Files, files)
	reply.Tried = a.Tried
	return reply, err
}

func sortFiles(names []string, files []*os.File) (*Reply, error) {
	reply := &Reply{TAPs: map[string]*os.File{}}
	var errs []error
	for i, f := range files {
		var err error
		switch names[i] {
		case fileDNSPacket:
			reply.DNSPacket, err = net.FilePacketConn(f)
			_ = f.Close()
		case fileDNSListener:
			reply.DNSListener, err = net.FileListener(f)
			_ = f.Close()
		case fileDNSRules:
			reply.DNSRules = f
		case fileListener:
			var l net.Listener
			if l, err = net.FileListener(f); err == nil {
				reply.Listeners = append(reply.Listeners, l)
			}
			_ = f.Close()
		case filePacket:
			var pc net.PacketConn
			if pc, err = net.FilePacketConn(f); err == nil {
				reply.Packets = append(reply.Packets, pc)
			}
			_ = f.Close()
		case fileSockDiag:
			reply.SockDiag = f
		case fileStream4:
			reply.Streams[0] = append(reply.Streams[0], f)
		case fileStream6:
			reply.Streams[1] = append(reply.Streams[1], f)
		case fileDatagram4:
			reply.Datagrams[0] = append(reply.Datagrams[0], f)
		case fileDatagram6:
			reply.Datagrams[1] = append(reply.Datagrams[1], f)
		default:
			reply.TAPs[names[i]] = f
		}
		errs = append(errs, err)
	}
	return reply, errors.Join(errs...)
}

// keep has the interfaces that are to stay outlive their descriptors. Until then those that are new go with the agent,
// which is killed where nobody waits for it any more.
func (r *Reply) keep(q Request) error {
	for _, i := range q.Add {
		f := r.TAPs[i.Name]
		if f == nil || !i.stays() {
			continue
		}
		if err := tap.Persist(f); err != nil {
			return fmt.Errorf("interface %s: %w", i.Name, err)
		}
	}
	return nil
}

func (r *Reply) close() {
	if r == nil {
		return
	}
	for _, f := range r.TAPs {
		_ = f.Close()
	}
	if r.DNSPacket != nil {
		_ = r.DNSPacket.Close()
	}
	if r.DNSListener != nil {
		_ = r.DNSListener.Close()
	}
	if r.DNSRules != nil {
		_ = r.DNSRules.Close()
	}
	if r.SockDiag != nil {
		_ = r.SockDiag.Close()
	}
	for family := range r.Streams {
		closeAll(r.Streams[family])
		closeAll(r.Datagrams[family])
	}
	for _, l := range r.Listeners {
		_ = l.Close()
	}
	for _, pc := range r.Packets {
		_ = pc.Close()
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// socketPair makes two connected sockets that keep messages apart: one for this process, one to pass on.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	ours, err := unixConn(fds[0])
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// unixConn takes over a socket's descriptor.
func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("control descriptor is not a unix socket"), c.Close())
	}
	// A message has to fit into the buffer as a whole (unix(7)), which by default is smaller than the largest one.
	_ = u.SetWriteBuffer(maxMessage)
	return u, nil
}

// readFiles reads one message into b, and returns its length and the files that come with it, which are the caller's.
func readFiles(c *net.UnixConn, b []byte) (n int, files []*os.File, err error) {
	m, err := sockio.ReadRights(c, b, sockio.MaxRights)
	if err != nil {
		return 0, nil, err
	}
	for _, fd := range m.FDs {
		files = append(files, os.NewFile(uintptr(fd), "received"))
	}
	return m.N, files, nil
}
