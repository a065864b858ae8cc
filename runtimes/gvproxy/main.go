package gvproxy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/ownsocket"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/client"
	"github.com/usernet/usernet/runtimes/vm"
)

// Times of the API's server, and of the end.
const (
	headerTimeout = 10 * time.Second
	endTimeout    = 5 * time.Second
)

// Main is the program: it returns the exit status.
func Main(daemon func() (*api.Client, error), args []string, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err == nil:
		err = logged(o, stderr, func(log io.Writer) error { return run(daemon, o, log) })
	}
	if err != nil {
		fmt.Fprintln(stderr, "gvproxy:", err)
		return 1
	}
	return 0
}

// logged calls f with where messages go.
func logged(o options, stderr io.Writer, f func(log io.Writer) error) error {
	if o.logFile == "" {
		return f(stderr)
	}
	file, err := os.OpenFile(o.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	err = f(file)
	if err != nil {
		fmt.Fprintln(file, "gvproxy:", err)
	}
	return errors.Join(err, file.Close())
}

// run attaches the machine and serves the API until a signal asks for the end.
func run(daemon func() (*api.Client, error), o options, log io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	cl, err := daemon()
	if err != nil {
		return err
	}
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			_ = l.Close() // which removes the socket's file
		}
	}()
	for _, path := range o.api {
		l, err := ownsocket.Listen(path)
		if err != nil {
			return fmt.Errorf("-listen: %w", err)
		}
		listeners = append(listeners, l)
	}
	machine, err := attach(ctx, cl, o)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		err = errors.Join(err, cl.Detach(end, key(o)), vm.Unlink(machine.VM))
	}()
	if o.pidFile != "" {
		if err := os.WriteFile(o.pidFile, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return err
		}
		defer os.Remove(o.pidFile)
	}
	e := machine.Endpoints[0]
	fmt.Fprintf(log, "gvproxy: virtual machine %s at %s on network %s, socket %s\n", machine.Name, e.IPv4.Addr(), e.Network,
		machine.VM.Path)
	srv := &http.Server{Handler: (&forwarder{ports: cl, machine: machine}).handler(), ReadHeaderTimeout: headerTimeout}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- srv.Serve(l) }() // until Close
	}
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	return errors.Join(err, srv.Close())
}

// key is what the attachment is found by again: a process that is started anew for the same socket takes its place.
func key(o options) string { return "gvproxy:" + o.socket.Path }

// attach makes a container of the machine, on a network with gvproxy's addresses where none was named.
func attach(ctx context.Context, cl *api.Client, o options) (*network.Container, error) {
	endpoint := network.NamedEndpointSpec{Network: o.network, EndpointSpec: network.EndpointSpec{MAC: o.mac}}
	if o.network == defaultNetwork {
		if err := ownNetwork(ctx, cl); err != nil {
			return nil, err
		}
		endpoint.IPv4 = netip.MustParseAddr(defaultAddr)
	}
	spec := network.ContainerSpec{
		Name:        o.name,
		NetworkMode: o.network,
		Networks:    []network.NamedEndpointSpec{endpoint},
		VM:          o.socket,
	}
	if o.ssh > 0 {
		spec.Ports = []network.PortBinding{{
			HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), HostPort: uint16(o.ssh), HostEnd: uint16(o.ssh),
			Port: sshPort, End: sshPort, Proto: network.TCP,
		}}
	}
	made, err := vm.Attach(ctx, cl, api.AttachRequest{Key: key(o), Holder: os.Getpid(), Spec: spec})
	if err != nil {
		return nil, err
	}
	return &made.Container, nil
}

// ownNetwork makes the network that has gvproxy's addresses, where it is not there.
func ownNetwork(ctx context.Context, cl *api.Client) error {
	_, err := client.EnsureNetwork(ctx, cl, defaultNetwork, func(error) (network.NetworkSpec, error) {
		return network.NetworkSpec{
			Name:  defaultNetwork,
			Pools: []network.Pool{{Subnet: netip.MustParsePrefix(defaultSubnet)}},
		}, nil
	})
	return err
}
