package gvproxy

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/vm"
)

// What gvproxy has where nobody says otherwise, and podman machine counts on.
const (
	defaultNetwork = "gvproxy"
	defaultSubnet  = "192.168.127.0/24"
	defaultAddr    = "192.168.127.2"
	defaultMAC     = "5a:94:ef:e4:0c:ee"
	defaultSSH     = 2222
	sshPort        = 22
)

// options are the command line.
type options struct {
	api     []string // paths of the API's sockets
	socket  network.VMSocket
	network string
	name    string
	mac     network.MAC
	ssh     int
	pidFile string
	logFile string
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// refused are options of gvproxy's that this place does not have, with what to do.
var refused = map[string]string{
	"listen-vpnkit":    "it has a framing of its own: have the hypervisor use -listen-qemu's or -listen-vfkit's",
	"listen-stdio":     "start the hypervisor with a socket",
	"forward-sock":     "forward the socket by SSH: ssh -N -L LOCAL:REMOTE -p PORT",
	"forward-dest":     "forward the socket by SSH: ssh -N -L LOCAL:REMOTE -p PORT",
	"forward-user":     "forward the socket by SSH: ssh -N -L LOCAL:REMOTE -p PORT",
	"forward-identity": "forward the socket by SSH: ssh -N -L LOCAL:REMOTE -p PORT",
	"config":           "give its values as options",
	"pcap":             "usernet capture NAME writes what the machine sends and receives",
}

func parse(args []string, errw io.Writer) (o options, err error) {
	f := flag.NewFlagSet("gvproxy", flag.ContinueOnError)
	f.SetOutput(io.Discard) // an error is one line, which the caller prints
	var api, services, qemu, vfkit, bess list
	var mac string
	f.Var(&api, "listen", "serve the HTTP API at unix://PATH; repeatable")
	f.Var(&services, "services", "as -listen")
	f.Var(&qemu, "listen-qemu", "a socket for qemu's -netdev stream: unix://PATH")
	f.Var(&vfkit, "listen-vfkit", "a socket for vfkit, krunkit, and qemu's -netdev dgram: unixgram://PATH")
	f.Var(&bess, "listen-bess", "a socket of records: unixpacket://PATH")
	f.IntVar(&o.ssh, "ssh-port", defaultSSH, "the port of 127.0.0.1 that leads to the machine's port 22; -1: none")
	f.StringVar(&o.pidFile, "pid-file", "", "write the process's number here")
	f.StringVar(&o.logFile, "log-file", "", "write messages here")
	f.Bool("debug", false, "accepted without effect")
	f.Int("mtu", 0, "accepted without effect: it is the network's")
	f.StringVar(&o.network, "usernet-network", os.Getenv("USERNET_NETWORK"),
		"the network to join (or $USERNET_NETWORK); one called gvproxy where none is given")
	f.StringVar(&o.name, "usernet-name", os.Getenv("USERNET_NAME"), "the machine's name there (or $USERNET_NAME)")
	f.StringVar(&mac, "usernet-mac", defaultMAC, "the machine's MAC address")
	for name, instead := range refused {
		f.Func(name, "refused: "+instead, func(string) error {
			return errors.New("usernet does not have this option: " + instead)
		})
	}
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(errw)
			f.Usage()
			return o, err
		}
		return o, fmt.Errorf("%w (-help lists the options)", err)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("argument %q is not expected", f.Arg(0))
	}
	if o.mac, err = network.ParseMAC(mac); err != nil {
		return o, err
	}
	if o.ssh > 65535 {
		return o, fmt.Errorf("-ssh-port %d: there are 65535 ports", o.ssh)
	}
	if o.socket, err = oneSocket(qemu, vfkit, bess); err != nil {
		return o, err
	}
	for _, at := range slices.Concat(api, services) {
		path, ok := strings.CutPrefix(at, "unix://")
		if !ok || path == "" {
			return o, fmt.Errorf("-listen %s: give unix://PATH: at a TCP port other users could ask for ports", at)
		}
		o.api = append(o.api, path)
	}
	o.network = cmp.Or(o.network, defaultNetwork)
	return o, nil
}

// oneSocket is the machine's socket: one of one kind.
func oneSocket(qemu, vfkit, bess list) (network.VMSocket, error) {
	var found []network.VMSocket
	for _, l := range []struct {
		name, scheme string
		at           list
	}{{"listen-qemu", "unix", qemu}, {"listen-vfkit", "unixgram", vfkit}, {"listen-bess", "unixpacket", bess}} {
		for _, at := range l.at {
			if !strings.HasPrefix(at, l.scheme+"://") {
				return network.VMSocket{}, fmt.Errorf("-%s %s: give %s://PATH", l.name, at, l.scheme)
			}
			socket, err := vm.ParseSocket(at)
			if err != nil {
				return socket, err
			}
			found = append(found, socket)
		}
	}
	if len(found) != 1 {
		return network.VMSocket{}, errors.New("give one of -listen-qemu, -listen-vfkit and -listen-bess, once: " +
			"a process has one virtual machine")
	}
	return found[0], nil
}
