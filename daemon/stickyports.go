package daemon

import (
	"context"
	"net/netip"

	"github.com/usernet/usernet/network"
)

// storeHostPorts stores the host ports that the container has now, so that a later setup binds the same ones.
func (d *Daemon) storeHostPorts(s *containerRuntime, c *network.Container) {
	if err := d.model.SetBound(c.ID, s.bound.All()); err != nil {
		d.log.Warn("host ports of container not stored: others may be chosen after a restart", "container", c.Name,
			"error", err)
	}
}

// publishOnSamePorts binds ports. Host ports that the daemon chooses are those that it chose last time, where they are
// free.
func (d *Daemon) publishOnSamePorts(
	ctx context.Context, s *containerRuntime, c *network.Container, ports []network.PortBinding,
) error {
	if before, changed := reuseHostPorts(ports, c.Bound); changed {
		_, err := d.publish(ctx, s, c, before)
		if err == nil {
			return nil
		}
		d.log.Warn("other host ports are chosen: those from before are taken", "container", c.Name, "error", err)
	}
	_, err := d.publish(ctx, s, c, ports)
	return err
}

// reuseHostPorts replaces host ports that are to be chosen by those in bound, which were chosen last time.
func reuseHostPorts(ports, bound []network.PortBinding) (list []network.PortBinding, changed bool) {
	used := map[network.PortProto]bool{} // host ports that one of ports has already
	before := map[network.PortProto][]network.PortBinding{}
	for _, b := range bound {
		inside := network.PortProto{Port: b.Port, Proto: b.Proto}
		before[inside] = append(before[inside], b)
	}
	hostOf := func(b network.PortBinding) network.PortProto {
		return network.PortProto{Port: b.HostPort, Proto: b.Proto}
	}
	for _, p := range ports {
		if fixed(p) {
			for port := int(p.HostPort); port <= int(max(p.HostPort, p.HostEnd)); port++ {
				used[network.PortProto{Port: uint16(port), Proto: p.Proto}] = true
			}
		}
	}
	for _, p := range ports {
		if fixed(p) {
			list = append(list, p)
			continue
		}
		for i := range p.Count() {
			one := p
			one.Port += uint16(i)
			one.End = one.Port
			inside := network.PortProto{Port: one.Port, Proto: one.Proto}
			for len(before[inside]) > 0 && used[hostOf(before[inside][0])] {
				before[inside] = before[inside][1:]
			}
			for _, b := range before[inside] {
				if sameHost(one.HostIP, b.HostIP) && !used[hostOf(b)] {
					used[hostOf(b)] = true
					one.HostPort, one.HostEnd, changed = b.HostPort, b.HostPort, true
					break
				}
			}
			list = append(list, one)
		}
	}
	return list, changed
}

// fixed says whether there is nothing to choose: one host port, or a range of them for a range.
func fixed(p network.PortBinding) bool {
	return p.HostPort != 0 && (p.End > p.Port || p.HostEnd <= p.HostPort)
}

// sameHost says whether what was asked for as want can have become have: no address is any.
func sameHost(want, have netip.Addr) bool { return !want.IsValid() || want == have }
