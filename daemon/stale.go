package daemon

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/usernet/usernet/network"
)

// resetAllStale is resetStale for many. Nobody has to wait for it: on a machine with much memory it takes 8 ms for
// each, as the kernel looks through a table of the connections of all namespaces for one.
func (d *Daemon) resetAllStale(containers []*network.Container) {
	for _, c := range containers {
		d.mu.Lock()
		s := d.sandboxes[c.ID]
		d.mu.Unlock()
		if d.ctx.Err() != nil || s == nil {
			continue
		}
		s.mu.Lock()
		if len(s.plugs) > 0 {
			d.resetStale(s, c)
		}
		s.mu.Unlock()
	}
}

// resetStale ends the connections that c had through the gateways of a daemon that is gone. The container would learn
// of it only when it sends; one that waits for an answer would wait until its keep-alive, if it has one. A connection that
// is new is none the worse for it. The caller holds s.mu.
func (d *Daemon) resetStale(s *sandboxState, c *network.Container) {
	if c.Pid == 0 {
		return // nothing under /proc shows a namespace that no process of ours is known in
	}
	for _, file := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", c.Pid, file))
		if err != nil {
			continue // it has just ended, or its kernel has no IPv6
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			local, remote, ok := establishedTCP(lines.Text())
			if p := s.plugOf(local.Addr()); ok && p != nil && p.at.Network().BeyondGateway(remote.Addr()) {
				if err := p.at.Network().Probe(remote, local); err != nil {
					d.log.Debug("stale connection not reset", "container", c.Name, "inside", local, "outside", remote, "error", err)
				}
			}
		}
		_ = f.Close()
	}
}

// plugOf finds the endpoint with an address.
func (s *sandboxState) plugOf(a netip.Addr) *plug {
	for _, p := range s.plugs {
		if p.at.Has(a) {
			return p
		}
	}
	return nil
}

// establishedTCP reads a line of /proc/PID/net/tcp or tcp6 (proc_pid_net(5)). ok is false for the heading, and for
// sockets in states in which there is no connection to reset.
func establishedTCP(line string) (local, remote netip.AddrPort, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 {
		return local, remote, false
	}
	switch fields[3] {
	case "01", "04", "05", "08", "09", "0B": // include/net/tcp_states.h: established, or closed by one side
	default:
		return local, remote, false
	}
	local, ok1 := procAddr(fields[1])
	remote, ok2 := procAddr(fields[2])
	return local, remote, ok1 && ok2
}

// procAddr reads ADDRESS:PORT as the kernel prints them: the port as a number, the address as words of 32 bits, each as
// a number in the machine's byte order though it holds the network's.
func procAddr(s string) (netip.AddrPort, bool) {
	a, p, ok := strings.Cut(s, ":")
	port, err := strconv.ParseUint(p, 16, 16)
	raw, err2 := hex.DecodeString(a)
	if !ok || err != nil || err2 != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), true
}
