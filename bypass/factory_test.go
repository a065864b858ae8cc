package bypass

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/bypass/fwmark"
	"github.com/usernet/usernet/sandbox"
	"github.com/usernet/usernet/switch/tap"
)

// controlPair is two connected sockets that keep messages apart.
func controlPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "control")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		conns[i] = c.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

// TestAnswersOfFactoriesAreToldApart answers a Make, each time in another way.
func TestAnswersOfFactoriesAreToldApart(t *testing.T) {
	for _, c := range []struct {
		name    string
		reply   any // nil: the factory ends
		files   int
		refused string // in what the sandbox cannot have
		rules   bool
		broken  bool
	}{
		{"sockets", reply{}, 3, "", false, false},
		{"a refusal", reply{Error: "no such protocol"}, 0, "no such protocol", false, false},
		{"rules", reply{Error: "chain in of table own", Rules: true}, 0, "chain in of table own", true, false},
		{"the end", nil, 0, "", false, true},
		{"nonsense", "text", 1, "", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := controlPair(t)
			f := &remoteFactory{agent: &sandbox.Agent{Conn: ours}}
			got := make(chan order, 1)
			go func() {
				var o order
				_, _ = sandbox.ReceiveMessage(theirs, &o)
				got <- o
				if c.reply != nil {
					_ = sandbox.SendMessage(theirs, c.reply, []int{0, 0, 0}[:c.files])
				}
				_ = theirs.Close()
			}()
			fds, refused, err := f.Make(Outbound, true, 7)
			defer closeAll(fds)
			if o := <-got; o != (order{Direction: Outbound, IPv6: true, Count: 7}) {
				t.Errorf("asked for %+v", o)
			}
			if (err != nil) != c.broken || !c.broken && len(fds) != c.files {
				t.Errorf("%d descriptors, %v", len(fds), err)
			}
			if (refused != nil) != (c.refused != "") || refused != nil &&
				!strings.Contains(refused.Error(), c.refused) ||
				errors.Is(refused, ErrContainerRules) != c.rules {
				t.Errorf("refused: %v", refused)
			}
		})
	}
}

// TestFactoryRefusesAndGoesOn gives a factory orders that need no preparation of this namespace.
func TestFactoryRefusesAndGoesOn(t *testing.T) {
	ours, theirs := controlPair(t)
	ended := make(chan error, 1)
	go func() { ended <- runFactory(theirs) }()
	f := &remoteFactory{agent: &sandbox.Agent{Conn: ours}}
	for _, d := range []Direction{-1, directions, 99} {
		if fds, refused, err := f.Make(d, false, 1); len(fds) > 0 || refused == nil || err != nil {
			t.Errorf("direction %d: %v, refused %v, %v", d, fds, refused, err)
		}
	}
	_ = ours.Close()
	if err := <-ended; err != nil {
		t.Errorf("nobody wants more: %v", err)
	}
}

// TestWatchesComeFromAFactoryOrSayWhy answers a Watch, each time in another way.
func TestWatchesComeFromAFactoryOrSayWhy(t *testing.T) {
	for _, c := range []struct {
		reply reply
		rules bool
	}{
		{reply{}, false},
		{reply{Error: "no such protocol"}, false},
		{reply{Error: "chain in of table own", Rules: true}, true},
	} {
		ours, theirs := controlPair(t)
		null, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		fds := []int{int(null.Fd()), int(null.Fd())}
		if c.reply.Error != "" {
			fds = nil
		}
		if err := sandbox.SendMessage(theirs, c.reply, fds); err != nil {
			t.Fatal(err)
		}
		_ = null.Close()
		w, err := (&remoteFactory{agent: &sandbox.Agent{Conn: ours}}).Watch()
		var asked order
		if _, err := sandbox.ReceiveMessage(theirs, &asked); err != nil || asked != (order{Watch: true}) {
			t.Errorf("asked for %+v, %v", asked, err)
		}
		if c.reply.Error != "" {
			if err == nil || errors.Is(err, ErrContainerRules) != c.rules ||
				!strings.Contains(err.Error(), c.reply.Error) {
				t.Errorf("%+v: %v", c.reply, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := len(w.(*watch).lists); n != 2 {
			t.Errorf("%d lists, want 2", n)
		}
		w.Close()
	}
}

// printOptions makes two sockets of each kind and prints what they are.
func printOptions() error {
	if err := command("ip", "link", "set", "lo", "up"); err != nil {
		return err
	}
	var made Sockets
	for k := range kind(kinds) {
		fds, err := made.Make(k.direction(), k.ipv6(), 2)
		if err != nil {
			return err
		}
		level, transparent := unix.IPPROTO_IP, unix.IP_TRANSPARENT
		if k.ipv6() {
			level, transparent = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
		}
		for _, fd := range fds {
			linger, err := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER)
			if err != nil {
				return err
			}
			fmt.Printf("%s ipv6=%v linger=%d,%d", k.direction(), k.ipv6(), linger.Onoff, linger.Linger)
			for _, o := range []struct {
				name          string
				level, option int
			}{
				{"domain", unix.SOL_SOCKET, unix.SO_DOMAIN},
				{"type", unix.SOL_SOCKET, unix.SO_TYPE},
				{"mark", unix.SOL_SOCKET, unix.SO_MARK},
				{"reuse", unix.SOL_SOCKET, unix.SO_REUSEADDR},
				{"transparent", level, transparent},
				{"inline", unix.SOL_SOCKET, unix.SO_OOBINLINE},
				{"nodelay", unix.IPPROTO_TCP, unix.TCP_NODELAY},
			} {
				v, err := unix.GetsockoptInt(fd, o.level, o.option)
				if err != nil && k.direction() != Datagram {
					return fmt.Errorf("%s: %w", o.name, err)
				}
				fmt.Printf(" %s=%d", o.name, v)
			}
			if k.direction() != Datagram {
				name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
				if err != nil {
					return err
				}
				fmt.Printf(" congestion=%s", name)
			}
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err != nil {
				return err
			}
			closes, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err != nil {
				return err
			}
			fmt.Printf(" nonblock=%v cloexec=%v\n", flags&unix.O_NONBLOCK != 0, closes == unix.FD_CLOEXEC)
		}
		closeAll(fds)
	}
	return nil
}

// seedAndList has sockets connect to who does not answer, and prints what the set syn_sent then has.
func seedAndList() error {
	f, err := tap.Create("eth0", nil, 1500, tap.Options{}) // nobody reads from it
	if err != nil {
		return err
	}
	defer f.Close()
	for _, c := range []string{
		"ip link set lo up",
		"ip addr add 192.0.2.1/24 dev eth0",
		"ip addr add 2001:db8::1/64 dev eth0 nodad",
		"ip link set eth0 up",
	} {
		if err := command("sh", "-c", c); err != nil {
			return err
		}
	}
	for i, to := range []string{"192.0.2.9", "2001:db8::9", "::ffff:192.0.2.8"} {
		addr := netip.MustParseAddr(to)
		family, port := unix.AF_INET, 4000+i
		var from, peer unix.Sockaddr
		if addr.Is4() {
			from, peer = &unix.SockaddrInet4{Port: port}, &unix.SockaddrInet4{Port: 80, Addr: addr.As4()}
		} else {
			family = unix.AF_INET6
			from, peer = &unix.SockaddrInet6{Port: port}, &unix.SockaddrInet6{Port: 80, Addr: addr.As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, from); err != nil {
			return err
		}
		if err := unix.Connect(fd, peer); !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("connect to %s: %w", to, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // it asks for nobody
	if err != nil {
		return err
	}
	defer l.Close()
	ipv6, err := fwmark.Prepare()
	if err == nil {
		err = loadRuleset(ipv6)
	}
	if err == nil {
		err = seedSYNSent(ipv6)
	}
	if err != nil {
		return err
	}
	for _, family := range []string{"ip", "ip6"} {
		out, err := exec.Command("nft", "--numeric", "list", "set", family, tableName, setSYNSent).Output()
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", out)
	}
	return nil
}

func init() {
	inside["options"] = printOptions
	inside["seed"] = seedAndList
}

func TestSocketsHaveWhatTheirDirectionNeeds(t *testing.T) {
	var want strings.Builder
	for k := range kind(kinds) {
		domain, typ, mark, stream := unix.AF_INET, unix.SOCK_STREAM, fwmark.Inbound, 1
		congestion := " congestion=reno"
		if k.ipv6() {
			domain = unix.AF_INET6
		}
		switch k.direction() {
		case Outbound:
			mark = fwmark.Outbound
		case Datagram:
			typ, stream, congestion = unix.SOCK_DGRAM, 0, ""
		}
		for range 2 {
			fmt.Fprintf(&want, "%s ipv6=%v linger=1,0 domain=%d type=%d mark=%d reuse=1 transparent=1 inline=%d nodelay=%d%s "+
				"nonblock=true cloexec=true\n", k.direction(), k.ipv6(), domain, typ, mark, stream, stream, congestion)
		}
	}
	if got := inNamespace(t, "options"); got != want.String() {
		t.Errorf("the sockets are\n%s\nwant\n%s", got, want.String())
	}
}

func TestConnectionsBeforeTheRulesAreInSYNSent(t *testing.T) {
	out := inNamespace(t, "seed")
	for _, want := range []string{
		"192.0.2.1 . 4000 . 192.0.2.9 . 80 ",
		"2001:db8::1 . 4001 . 2001:db8::9 . 80 ",
		"192.0.2.1 . 4002 . 192.0.2.8 . 80 ",
	} {
		if strings.Count(out, want) != 1 {
			t.Errorf("%q is not there once in\n%s", want, out)
		}
	}
	if n := strings.Count(out, " . 80 "); n != 3 || strings.Contains(out, "127.0.0.1") {
		t.Errorf("%d connections:\n%s", n, out)
	}
}
