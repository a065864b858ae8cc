package sandbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// stubTries is how many ports are tried until one is free for UDP and TCP.
const stubTries = 100

// listenDNS makes the sockets of the sandbox's DNS stub. They stay in this namespace wherever they are used.
//
// They are bound to a port that the kernel chooses, and redirectDNS has the packets for port 53 of at come to them.
// So port 53 is free for a server of the sandbox's own, which most bind to all addresses. Where the rules cannot be
// had the sockets are bound to at itself. Where a server of the sandbox is bound to exactly at there is no stub, and
// no error.
func listenDNS(at netip.AddrPort) ([]namedFile, error) {
	if served, err := boundExactly(at); err != nil || served {
		return nil, err
	}
	for range stubTries {
		pc, ln, err := listenBoth(netip.AddrPortFrom(at.Addr(), 0))
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("DNS stub: %w", err)
		}
		port := uint16(ln.Addr().(*net.TCPAddr).Port)
		if owner, err := redirectDNS(at, port); err == nil {
			files, err := stubFiles(pc, ln)
			if err != nil {
				_ = owner.Close()
				return nil, err
			}
			return append(files, namedFile{fileDNSRules, owner}), nil
		}
		_ = pc.Close()
		_ = ln.Close()
		break
	}
	pc, ln, err := listenBoth(at)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, nil // a server of the sandbox's is bound to all addresses
	}
	if err != nil {
		return nil, fmt.Errorf("DNS stub at %s: %w", at, err)
	}
	return stubFiles(pc, ln)
}

// listenBoth binds a UDP and a TCP socket to one port; port 0 is one that the kernel chooses.
func listenBoth(at netip.AddrPort) (*net.UDPConn, *net.TCPListener, error) {
	var cfg net.ListenConfig
	pc, err := cfg.ListenPacket(context.Background(), "udp", at.String())
	if err != nil {
		return nil, nil, err
	}
	ln, err := cfg.Listen(context.Background(), "tcp", pc.LocalAddr().String())
	if err != nil {
		_ = pc.Close()
		return nil, nil, err
	}
	return pc.(*net.UDPConn), ln.(*net.TCPListener), nil
}

// stubFiles returns descriptors of both sockets, which it closes.
func stubFiles(pc *net.UDPConn, ln *net.TCPListener) ([]namedFile, error) {
	defer pc.Close()
	defer ln.Close()
	uf, err := pc.File()
	if err != nil {
		return nil, fmt.Errorf("DNS stub: %w", err)
	}
	tf, err := ln.File()
	if err != nil {
		_ = uf.Close()
		return nil, fmt.Errorf("DNS stub: %w", err)
	}
	return []namedFile{{fileDNSPacket, uf}, {fileDNSListener, tf}}, nil
}

// boundExactly says whether a socket of this namespace is bound to at, and not to all addresses, as the kernel's
// diagnosis of sockets or /proc/net says. Without these, none is known to be.
func boundExactly(at netip.AddrPort) (bool, error) {
	protocols := []string{"udp", "tcp"}
	if listens, err := tcpListens(at); err == nil { // there may be no module tcp_diag
		if listens {
			return true, nil
		}
		protocols = protocols[:1]
	}
	for _, proto := range protocols {
		text, err := os.ReadFile("/proc/self/net/" + proto)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("sockets of the sandbox: %w", err)
		}
		if listsLocal(text, at) {
			return true, nil
		}
	}
	return false, nil
}

// listsLocal says whether a table of sockets, of the form of /proc/net/udp (proc_net(5)), has one with the local
// address at, which is an IPv4 one.
func listsLocal(table []byte, at netip.AddrPort) bool {
	addr := at.Addr().As4()
	var native [4]byte // the kernel prints the address as one number in the machine's byte order
	binary.NativeEndian.PutUint32(native[:], binary.BigEndian.Uint32(addr[:]))
	want := []byte(fmt.Sprintf("%s:%04X", strings.ToUpper(hex.EncodeToString(native[:])), at.Port()))
	for line := range bytes.Lines(table) {
		if fields := bytes.Fields(line); len(fields) > 1 && bytes.Equal(fields[1], want) {
			return true
		}
	}
	return false
}
