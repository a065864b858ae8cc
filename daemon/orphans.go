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

// resetAllOrphans calls resetOrphans for each container. It runs in the background: on a machine with much memory each
// takes 8 ms, because the kernel walks a table of the connections of all namespaces.
func (d *Daemon) resetAllOrphans(containers []*network.Container) {
	for _, c := range containers {
		d.mu.Lock()
		s := d.runtimes[c.ID]
		d.mu.Unlock()
		if d.ctx.Err() != nil || s == nil {
			continue
		}
		s.mu.Lock()
		if len(s.attachments) > 0 {
			d.resetOrphans(s, c)
		}
		s.mu.Unlock()
	}
}

// resetOrphans ends the connections that c had through the gateways of a daemon that has ended. Without it a program
// that waits for an answer would wait until its keep-alive ends, if it has one: it learns of the loss only when it
// sends. New connections are not affected, because the gateway knows them. The caller holds s.mu.
func (d *Daemon) resetOrphans(s *containerRuntime, c *network.Container) {
	if c.Pid == 0 {
		return // /proc shows connections by process, and no process in this namespace is known
	}
	for _, file := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", c.Pid, file))
		if err != nil {
			continue // it has just ended, or its kernel has no IPv6
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			local, remote, ok := establishedTCP(lines.Text())
			if p := s.attachmentOf(local.Addr()); ok && p != nil && p.port.Network().BeyondGateway(remote.Addr()) {
				if err := p.port.Network().Probe(remote, local); err != nil {
					d.log.Debug("orphaned connection not reset", "container", c.Name, "inside", local, "outside",
						remote, "error", err)
				}
			}
		}
		_ = f.Close()
	}
}

// attachmentOf finds the endpoint with an address.
func (s *containerRuntime) attachmentOf(a netip.Addr) *attachment {
	for _, p := range s.attachments {
		if p.port.Has(a) {
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
