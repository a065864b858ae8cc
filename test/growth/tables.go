package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

var tables = []table{
	{name: "endpoints on one network", sizes: []int{1, 10, 100, 1000, 2000}, files: 2, fill: fillEndpoints},
	{name: "networks, with an endpoint each", sizes: []int{1, 10, 100, 200}, files: 12, fill: fillNetworks},
	{name: "names on one network, 100 for each endpoint", sizes: []int{100, 1000, 10_000}, files: 1, fill: fillNames},
	{name: "published TCP ports of one container", sizes: []int{100, 1000, 10_000, 50_000}, files: 1, fill: fillPorts},
	{name: "UDP flows, 4000 for each endpoint", sizes: []int{100, 1000, 10_000, 100_000}, files: 1, fill: fillFlows},
}

// network has a network be there.
func (w *world) network(ctx context.Context, name, subnet string) error {
	s := network.NetworkSpec{Name: name}
	if subnet != "" {
		s.Pools = []network.Pool{{Subnet: netip.MustParsePrefix(subnet)}}
	}
	_, err := w.client.NetworkCreate(ctx, s)
	return err
}

// endpoint attaches a virtual machine's socket.
func (w *world) endpoint(ctx context.Context, name, on string, aliases ...string) (api.AttachReply, error) {
	at := filepath.Join(w.dir, name)
	made, err := w.client.Attach(ctx, api.AttachRequest{Key: name, Spec: network.ContainerSpec{
		Name: name, NetworkMode: on, HostLoopback: true, VM: network.VMSocket{Kind: "stream", Path: at},
		Networks: []network.NamedEndpointSpec{{Network: on, EndpointSpec: network.EndpointSpec{Aliases: aliases}}},
	}}, nil)
	if err != nil {
		return made, err
	}
	w.containers++
	return made, os.Symlink(made.VM.Socket, at) // as usernet attach makes it; without it the machine is gone
}

func (w *world) detach(ctx context.Context, name string) error {
	if err := w.client.Detach(ctx, name); err != nil {
		return err
	}
	w.containers--
	return os.Remove(filepath.Join(w.dir, name))
}

// rename gives an endpoint another name, and its own back.
func (w *world) rename(name string) change {
	return change{"a name changed twice, ms", func(ctx context.Context, i int) error {
		other := fmt.Sprint("renamed", i)
		return errors.Join(w.client.ContainerRename(ctx, name, other), w.client.ContainerRename(ctx, other, name))
	}}
}

// ask asks for a name.
func (w *world) ask(as, name string) change {
	return change{"a name asked for, ms", func(ctx context.Context, _ int) error {
		a, err := w.client.DNSQuery(ctx, as, name, "A")
		if err == nil && len(a.Records) != 1 {
			err = fmt.Errorf("%s is answered with %v, %v", name, a.Rcode, a.Records)
		}
		return err
	}}
}

const lab = "lab" // the network of tables with one

// fillLab makes a network on which add has the endpoint "e0".
func fillLab(w *world, add func(ctx context.Context, size int) error) func(ctx context.Context, size int) error {
	made := false
	return func(ctx context.Context, size int) error {
		if !made {
			if err := w.network(ctx, lab, "10.90.0.0/16"); err != nil {
				return err
			}
			made = true
		}
		return add(ctx, size)
	}
}

func fillEndpoints(w *world) filling {
	had := 0
	return filling{
		add: fillLab(w, func(ctx context.Context, size int) error {
			for ; had < size; had++ {
				if _, err := w.endpoint(ctx, fmt.Sprint("e", had), lab); err != nil {
					return err
				}
			}
			return nil
		}),
		more: func(ctx context.Context, i int) error {
			_, err := w.endpoint(ctx, fmt.Sprint("more", i), lab)
			return err
		},
		gone:     func(ctx context.Context, i int) error { return w.detach(ctx, fmt.Sprint("more", i)) },
		changes:  []change{w.rename("e0"), w.ask("e0", "e0")},
		restarts: true,
	}
}

func fillNetworks(w *world) filling {
	had := 0
	more := func(ctx context.Context, i int) error {
		if err := w.network(ctx, fmt.Sprint("n", i), fmt.Sprintf("10.%d.%d.0/24", 91+i/250, i%250)); err != nil {
			return err
		}
		_, err := w.endpoint(ctx, fmt.Sprint("e", i), fmt.Sprint("n", i))
		return err
	}
	const above = 1000 // of the numbers that more has
	return filling{
		add: func(ctx context.Context, size int) error {
			for ; had < size; had++ {
				if err := more(ctx, had); err != nil {
					return err
				}
			}
			return nil
		},
		more: func(ctx context.Context, i int) error { return more(ctx, above+i) },
		gone: func(ctx context.Context, i int) error {
			if err := w.detach(ctx, fmt.Sprint("e", above+i)); err != nil {
				return err
			}
			return w.client.NetworkRemove(ctx, fmt.Sprint("n", above+i))
		},
		changes:  []change{w.rename("e0"), w.ask("e0", "e0")},
		restarts: true,
	}
}

func fillNames(w *world) filling {
	const each = 100
	had := 0
	names := func(of int) (list []string) {
		for i := range each {
			list = append(list, fmt.Sprintf("alias%d-%d", of, i))
		}
		return list
	}
	return filling{
		add: fillLab(w, func(ctx context.Context, size int) error {
			for ; had < size/each; had++ {
				if _, err := w.endpoint(ctx, fmt.Sprint("e", had), lab, names(had)...); err != nil {
					return err
				}
			}
			return nil
		}),
		more: func(ctx context.Context, i int) error {
			_, err := w.endpoint(ctx, fmt.Sprint("more", i), lab, fmt.Sprint("another", i))
			return err
		},
		gone:     func(ctx context.Context, i int) error { return w.detach(ctx, fmt.Sprint("more", i)) },
		changes:  []change{w.rename("e0"), w.ask("e0", "alias0-99")},
		restarts: true,
	}
}

// Ports of the host that are published: so many from one on, of each address of its loopback in turn. They are below
// those that connections get (ip_local_port_range, ip(7)).
const (
	firstPort   = 10_000
	portsOfEach = 10_000
)

func publication(i, n int) network.PortBinding {
	from := firstPort + i%portsOfEach
	return network.PortBinding{
		HostIP:   netip.AddrFrom4([4]byte{127, 9, 0, byte(1 + i/portsOfEach)}),
		HostPort: uint16(from), HostEnd: uint16(from + n - 1),
		Port: uint16(from), End: uint16(from + n - 1), Proto: network.TCP,
	}
}

func fillPorts(w *world) filling {
	had := 0
	publish := func(ctx context.Context, b network.PortBinding) error {
		_, err := w.client.PortsAdd(ctx, "e0", []network.PortBinding{b})
		return err
	}
	const above = 20 * portsOfEach
	return filling{
		add: fillLab(w, func(ctx context.Context, size int) error {
			if had == 0 {
				if _, err := w.endpoint(ctx, "e0", lab); err != nil {
					return err
				}
			}
			for had < size {
				n := min(size-had, portsOfEach-had%portsOfEach)
				if err := publish(ctx, publication(had, n)); err != nil {
					return err
				}
				had += n
			}
			return nil
		}),
		more: func(ctx context.Context, i int) error { return publish(ctx, publication(above+i, 1)) },
		gone: func(ctx context.Context, i int) error {
			return w.client.PortsRemove(ctx, "e0", []network.PortBinding{publication(above+i, 1)})
		},
		changes: []change{{"a connection to one, ms", func(context.Context, int) error {
			c, err := net.Dial("tcp", fmt.Sprintf("127.9.0.1:%d", firstPort))
			if err != nil {
				return err
			}
			return c.Close()
		}}},
		restarts: true,
	}
}

func fillFlows(w *world) filling {
	const each = 4000 // below usernet serve --limit-udp
	var (
		had    int
		echo   *echo
		guests []*guest
	)
	return filling{
		add: fillLab(w, func(ctx context.Context, size int) (err error) {
			if echo == nil {
				if echo, err = startEcho(); err != nil {
					return err
				}
				w.closing = append(w.closing, echo.close)
			}
			for had < size {
				if had%each == 0 {
					made, err := w.endpoint(ctx, fmt.Sprint("e", len(guests)), lab)
					if err != nil {
						return err
					}
					g, err := newGuest(made.Container, echo.port)
					if err != nil {
						return err
					}
					w.closing = append(w.closing, g.close)
					guests = append(guests, g)
				}
				n := min(size-had, each-had%each)
				if err := guests[len(guests)-1].open(ctx, had%each, n); err != nil {
					return err
				}
				had += n
			}
			list, err := w.client.Flows(ctx, "e0")
			if err == nil && len(list) < min(had, each) {
				err = fmt.Errorf("e0 has %d flows of %d", len(list), min(had, each))
			}
			return err
		}),
		// The first datagram of one more, there and back.
		more: func(ctx context.Context, i int) error { return guests[0].open(ctx, each+i, 1) },
		changes: []change{
			{"a datagram there and back, ms", func(ctx context.Context, _ int) error {
				return guests[0].open(ctx, 1, 1)
			}},
			{"flows of one container listed, ms", func(ctx context.Context, _ int) error {
				_, err := w.client.Flows(ctx, "e0")
				return err
			}},
		},
	}
}

// giveUp is how long an answer may take.
const giveUp = 20 * time.Second
