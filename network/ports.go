package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/ports"
)

// ParsePorts reads values of -p: [[HOSTIP:][HOSTPORT[-END]]:]PORT[-END][/PROTO].
func ParsePorts(specs []string) ([]PortBinding, error) {
	var list []PortBinding
	for _, s := range specs {
		b, err := parsePort(s)
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

func parsePort(spec string) (PortBinding, error) {
	rest, proto, err := cutProto(spec)
	if err != nil {
		return PortBinding{}, err
	}
	b := PortBinding{Proto: proto}
	host, ip := "", ""
	i := strings.LastIndexByte(rest, ':')
	if i >= 0 {
		host, rest = rest[:i], rest[i+1:]
		if j := strings.LastIndexByte(host, ':'); j >= 0 {
			ip, host = host[:j], host[j+1:]
		}
	}
	if rest == "" {
		return b, errdefs.Invalid("no port specified: %s<empty>", spec)
	}
	if b.Port, b.End, err = parseRange(rest); err != nil || b.Port == 0 {
		return b, errdefs.Invalid("invalid containerPort: %s", rest)
	}
	if host != "" {
		if b.HostPort, b.HostEnd, err = parseRange(host); err != nil || b.HostPort == 0 && b.HostEnd != 0 {
			return b, errdefs.Invalid("invalid hostPort: %s", host)
		}
	}
	if ip != "" {
		addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]"))
		if err != nil {
			return b, errdefs.Invalid("invalid IP address: %s", ip)
		}
		b.HostIP = addr
	}
	n, hn := int(b.End-b.Port), int(b.HostEnd-b.HostPort)
	if host != "" && n != hn && n != 0 {
		return b, errdefs.Invalid("invalid ranges specified for container and host Ports: %s and %s", rest, host)
	}
	return b, nil
}

func cutProto(spec string) (string, Protocol, error) {
	rest, proto, ok := strings.Cut(spec, "/")
	if !ok {
		return rest, TCP, nil
	}
	switch p := Protocol(strings.ToLower(proto)); p {
	case TCP, UDP, SCTP:
		return rest, p, nil
	}
	return "", "", errdefs.Invalid("invalid proto: %s", proto)
}

func parseRange(s string) (first, last uint16, err error) {
	a, b, ranged := strings.Cut(s, "-")
	x, err := strconv.ParseUint(a, 10, 16)
	if err != nil {
		return 0, 0, err
	}
	y := x
	if ranged {
		if y, err = strconv.ParseUint(b, 10, 16); err != nil {
			return 0, 0, err
		}
	}
	if y < x {
		return 0, 0, fmt.Errorf("range %s runs backward", s)
	}
	return uint16(x), uint16(y), nil
}

// ParseExpose reads values of --expose: PORT[-END][/PROTO].
func ParseExpose(specs []string) ([]PortProto, error) {
	var list []PortProto
	for _, s := range specs {
		rest, proto, err := cutProto(s)
		if err != nil {
			return nil, err
		}
		first, last, err := parseRange(rest)
		if err != nil || first == 0 {
			return nil, errdefs.Invalid("invalid range format for --expose: %s", s)
		}
		for p := int(first); p <= int(last); p++ {
			list = append(list, PortProto{Port: uint16(p), Proto: proto})
		}
	}
	return list, nil
}

// ParseExtraHost reads NAME:IP or NAME=IP, where IP may be host-gateway, and returns it with a colon.
func ParseExtraHost(spec string) (string, error) {
	i := strings.IndexAny(spec, "=:")
	if i <= 0 {
		return "", errdefs.Invalid("bad format for add-host: %q: give NAME:IP", spec)
	}
	name, ip := spec[:i], strings.Trim(spec[i+1:], "[]")
	if ip != "host-gateway" {
		if _, err := netip.ParseAddr(ip); err != nil {
			return "", errdefs.Invalid("invalid IP address in add-host: %q", spec[i+1:])
		}
	}
	return name + ":" + ip, nil
}

// FormatPorts is the PORTS column of ps, in Docker's order: exposed ports and those published under their own number,
// then the others by the container's port. Neighbours are folded into ranges.
func FormatPorts(bound []ports.Bound, exposed []PortProto) string {
	list := slices.Clone(bound)
	has := map[PortProto]bool{}
	for _, b := range bound {
		has[PortProto{Port: b.Port, Proto: b.Proto}] = true
	}
	for _, x := range exposed {
		if !has[x] {
			list = append(list, ports.Bound{Port: x.Port, Proto: x.Proto})
		}
	}
	slices.SortFunc(list, func(a, b ports.Bound) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), a.Host.Compare(b.Host), cmp.Compare(a.Proto, b.Proto))
	})
	var plain, mapped []*portRun
	ends := map[ports.Bound]*portRun{} // runs by what goes on with them
	for _, b := range list {
		runs := &mapped
		if !b.Host.IsValid() || b.Host.Port() == b.Port {
			runs = &plain
		}
		r := ends[b]
		if r != nil {
			delete(ends, b)
			r.n++
		} else {
			r = &portRun{b, 1}
			*runs = append(*runs, r)
		}
		if next, ok := neighbour(b); ok && ends[next] == nil {
			ends[next] = r
		}
	}
	var out []string
	for _, r := range append(plain, mapped...) {
		out = append(out, r.String())
	}
	return strings.Join(out, ", ")
}

// neighbour is what follows a port, where there is something.
func neighbour(b ports.Bound) (ports.Bound, bool) {
	b.Port++
	if !b.Host.IsValid() {
		return b, b.Port != 0
	}
	b.Host = netip.AddrPortFrom(b.Host.Addr(), b.Host.Port()+1)
	return b, b.Port != 0 && b.Host.Port() != 0
}

// portRun is n neighbouring ports, the first of which is first.
type portRun struct {
	first ports.Bound
	n     int
}

// String is 0.0.0.0:8000-8001->80-81/tcp, or 80/tcp.
func (r portRun) String() string {
	span := func(first uint16) string {
		if r.n == 1 {
			return fmt.Sprint(first)
		}
		return fmt.Sprintf("%d-%d", first, int(first)+r.n-1)
	}
	inside := fmt.Sprintf("%s/%s", span(r.first.Port), r.first.Proto)
	if !r.first.Host.IsValid() {
		return inside
	}
	host := r.first.Host.Addr().String()
	if r.first.Host.Addr().Is6() {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%s->%s", host, span(r.first.Host.Port()), inside)
}
