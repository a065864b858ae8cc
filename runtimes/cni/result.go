package cni

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/client"
	"github.com/usernet/usernet/sandbox"
)

// attached is the endpoint of c with a key, or nil.
func attached(c network.Container, key string) *network.Endpoint {
	i := slices.IndexFunc(c.Endpoints, func(e *network.Endpoint) bool { return e.Key == key })
	if i < 0 {
		return nil
	}
	return c.Endpoints[i]
}

// ipNet is p as CNI's library has it.
func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// printResult answers ADD: the result of the plugins before this one, with what was attached added.
func (p plugin) printResult(
	ctx context.Context,
	c *config,
	args *skel.CmdArgs,
	made network.Container,
	key string,
	d daemon,
) error {
	e := attached(made, key)
	if e == nil {
		return types.NewError(types.ErrInternal, "the daemon attached nothing with the key "+key, "")
	}
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion}
	if c.PrevResult != nil {
		var err error
		if result, err = current.NewResultFromResult(c.PrevResult); err != nil {
			return types.NewError(types.ErrDecodingFailure, "prevResult: "+err.Error(), "")
		}
	}
	n, err := d.Network(ctx, e.NetworkID)
	if err != nil {
		return err
	}
	result.Interfaces = append(
		result.Interfaces,
		&current.Interface{Name: e.Interface, Mac: e.MAC.String(), Sandbox: args.Netns},
	)
	index := len(result.Interfaces) - 1
	v4, v6 := network.DefaultRouteEndpoint(&made, func(string) *network.Network {
		return &network.Network{
			Driver:   network.DriverBridge,
			Internal: n.Internal,
		} // the others' are printed by their own calls
	})
	for _, one := range []struct {
		addr     netip.Prefix
		gateway  netip.Addr
		leads    bool
		anywhere string
	}{{e.IPv4, e.Gateway4, v4 == e, "0.0.0.0/0"}, {e.IPv6, e.Gateway6, v6 == e, "::/0"}} {
		if !one.addr.IsValid() {
			continue
		}
		ip := &current.IPConfig{Interface: &index, Address: ipNet(one.addr)}
		if one.gateway.IsValid() && !n.Internal {
			ip.Gateway = one.gateway.AsSlice()
			if one.leads {
				result.Routes = append(
					result.Routes,
					&types.Route{Dst: ipNet(netip.MustParsePrefix(one.anywhere)), GW: ip.Gateway},
				)
			}
		}
		result.IPs = append(result.IPs, ip)
	}
	result.DNS.Nameservers = append([]string{client.NameServer}, result.DNS.Nameservers...)
	dns := c.dns()
	result.DNS.Search = append(result.DNS.Search, dns.Search...)
	result.DNS.Options = append(result.DNS.Options, dns.Options...)
	return types.PrintResult(result, c.CNIVersion)
}

// check says whether an attachment is as ADD left it, as far as the daemon tells, and the interface itself where the
// caller may enter the namespace.
func (p plugin) check(args *skel.CmdArgs) error {
	c, d, ctx, cancel, err := p.begin(args)
	if err != nil {
		return err
	}
	defer cancel()
	if c.PrevResult == nil {
		return invalid(types.ErrInvalidNetworkConfig, "CHECK needs prevResult")
	}
	prev, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return invalid(types.ErrDecodingFailure, "prevResult: %v", err)
	}
	k := key(c.Name, args.ContainerID, args.IfName)
	list, err := d.Attachments(ctx, k)
	if err != nil {
		return coded(err)
	}
	for _, have := range list {
		e := attached(have, k)
		if e == nil {
			continue
		}
		if have.Status != network.Running {
			return invalid(types.ErrUnknownContainer, "container %s is %s", have.Name, have.Status)
		}
		if err := sameNamespace(args.Netns, have.NetNSID); err != nil {
			return err
		}
		if err := sameAddresses(prev, e); err != nil {
			return err
		}
		return inside(args.Netns, func() error { return sameInterface(e) })
	}
	return invalid(
		types.ErrUnknownContainer,
		"container %s has no interface %s on network %s",
		args.ContainerID,
		args.IfName,
		c.Network,
	)
}

// sameNamespace says whether a path leads to the namespace that was attached.
func sameNamespace(path string, id network.NamespaceID) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return invalid(types.ErrInvalidNetNS, "network namespace %s: %v", path, err)
	}
	if st.Dev != id.Dev || st.Ino != id.Ino {
		return invalid(types.ErrInvalidNetNS, "%s is not the network namespace that was attached", path)
	}
	return nil
}

// inside calls look in the network namespace at path. Runtimes call plugins in the user namespace that owns it, or as
// root; others may not enter it: look is not called then.
func inside(path string, look func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this, and nothing else runs in the namespace
		f, err := sandbox.OpenNetNS(path)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			_ = f.Close()
		}
		switch {
		case errors.Is(err, unix.EPERM):
			result <- nil
		case err != nil:
			result <- invalid(types.ErrInvalidNetNS, "network namespace %s: %v", path, err)
		default:
			result <- look()
		}
	}()
	return <-result
}

// sameInterface says whether the interface of an endpoint is there, up, and has its addresses.
func sameInterface(e *network.Endpoint) error {
	i, err := net.InterfaceByName(e.Interface)
	if err != nil {
		return invalid(types.ErrInvalidNetworkConfig, "interface %s is not there any more: %v", e.Interface, err)
	}
	if i.Flags&net.FlagUp == 0 {
		return invalid(types.ErrInvalidNetworkConfig, "interface %s is down", e.Interface)
	}
	if mac := i.HardwareAddr.String(); mac != e.MAC.String() {
		return invalid(types.ErrInvalidNetworkConfig, "interface %s has the MAC address %s, not %s", e.Interface, mac,
			e.MAC)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return invalid(types.ErrInternal, "addresses of interface %s: %v", e.Interface, err)
	}
	for _, want := range []netip.Prefix{e.IPv4, e.IPv6} {
		if want.IsValid() && !slices.ContainsFunc(addrs, func(a net.Addr) bool { return a.String() == want.String() }) {
			return invalid(types.ErrInvalidNetworkConfig, "interface %s has not the address %s any more", e.Interface,
				want)
		}
	}
	return nil
}

// sameAddresses compares what ADD has answered with what is there.
func sameAddresses(prev *current.Result, e *network.Endpoint) error {
	for _, ip := range prev.IPs {
		if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(prev.Interfaces) ||
			prev.Interfaces[*ip.Interface].Name != e.Interface {
			continue // another plugin's
		}
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if addr = addr.Unmap(); !ok || addr != e.IPv4.Addr() && addr != e.IPv6.Addr() {
			return invalid(
				types.ErrInvalidNetworkConfig,
				"interface %s has not the address %s",
				e.Interface,
				ip.Address.IP,
			)
		}
	}
	return nil
}
