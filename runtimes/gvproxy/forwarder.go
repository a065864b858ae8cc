package gvproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// maxBody bounds the body of a request, in bytes.
const maxBody = 64 << 10

// ports is what it needs of *api.Client.
type ports interface {
	Ports(ctx context.Context, ref string) ([]api.Published, error)
	PortsAdd(ctx context.Context, ref string, ports []network.PortBinding) ([]api.Published, error)
	PortsRemove(ctx context.Context, ref string, ports []network.PortBinding) error
}

// forwarder is gvproxy's HTTP API for one virtual machine.
type forwarder struct {
	ports   ports
	machine *network.Container

	changing sync.Mutex // held from looking at the ports to changing them
}

// exposed is a forwarded port, as the API has it.
type exposed struct {
	Local    string `json:"local"`
	Remote   string `json:"remote,omitempty"`
	Protocol string `json:"protocol"`
}

func (f *forwarder) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/services/forwarder/all", f.all)
	mux.HandleFunc("/services/forwarder/expose", post(f.expose))
	mux.HandleFunc("/services/forwarder/unexpose", post(f.unexpose))
	mux.HandleFunc("/services/dhcp/leases", f.leases)
	mux.HandleFunc("/leases", f.leases)
	return mux
}

// post answers with the texts and status codes of gvproxy's, which its clients look at.
func post(do func(ctx context.Context, e exposed) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			http.Error(w, "post only", http.StatusBadRequest)
			return
		}
		var e exposed
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&e); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if err := do(r.Context(), e); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

// binding is a port as the daemon has it; without remote, that of any port of the machine.
func (f *forwarder) binding(e exposed) (b network.PortBinding, err error) {
	switch e.Protocol {
	case "", "tcp":
		b.Proto = network.TCP
	case "udp":
		b.Proto = network.UDP
	default:
		return b, fmt.Errorf("protocol %q: usernet forwards tcp and udp; forward sockets by SSH", e.Protocol)
	}
	host, port, err := split(e.Local)
	if err != nil {
		return b, fmt.Errorf("local: %w", err)
	}
	b.HostIP, b.HostPort, b.HostEnd = host, port, port
	if e.Remote == "" {
		return b, nil
	}
	remote, port, err := split(e.Remote)
	if err != nil {
		return b, fmt.Errorf("remote: %w", err)
	}
	if remote.IsValid() && !f.owns(remote) {
		return b, fmt.Errorf("remote: %s is not the virtual machine's: publish another container's port with "+
			"`usernet port add`", remote)
	}
	b.Port, b.End = port, port
	return b, nil
}

func (f *forwarder) owns(a netip.Addr) bool {
	for _, e := range f.machine.Endpoints {
		if a == e.IPv4.Addr() || a == e.IPv6.Addr() {
			return true
		}
	}
	return false
}

// split reads ADDRESS:PORT; the address may be left out.
func split(s string) (netip.Addr, uint16, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return netip.Addr{}, 0, fmt.Errorf("%q is not ADDRESS:PORT", s)
	}
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || port == 0 {
		return netip.Addr{}, 0, fmt.Errorf("%q has no port", s)
	}
	if i == 0 {
		return netip.Addr{}, uint16(port), nil
	}
	a, err := netip.ParseAddr(strings.Trim(s[:i], "[]"))
	return a, uint16(port), err
}

// find returns the published ports that are bound at b's place.
func (f *forwarder) find(ctx context.Context, b network.PortBinding) ([]network.PortBinding, error) {
	have, err := f.ports.Ports(ctx, f.machine.ID)
	var found []network.PortBinding
	for _, p := range have {
		any := !b.HostIP.IsValid() && p.Host.Addr().IsUnspecified()
		if p.Proto == b.Proto && p.Host.Port() == b.HostPort && (any || p.Host.Addr() == b.HostIP) {
			found = append(found, p.Binding())
		}
	}
	return found, err
}

func (f *forwarder) expose(ctx context.Context, e exposed) error {
	if e.Remote == "" {
		return errors.New("remote: it is missing")
	}
	b, err := f.binding(e)
	if err != nil {
		return err
	}
	f.changing.Lock()
	defer f.changing.Unlock()
	if have, err := f.find(ctx, b); err != nil || len(have) > 0 {
		return errors.Join(err, fmt.Errorf("proxy already running for %s on %s", b.Proto, e.Local))
	}
	_, err = f.ports.PortsAdd(ctx, f.machine.ID, []network.PortBinding{b})
	return err
}

func (f *forwarder) unexpose(ctx context.Context, e exposed) error {
	e.Remote = ""
	b, err := f.binding(e)
	if err != nil {
		return err
	}
	f.changing.Lock()
	defer f.changing.Unlock()
	have, err := f.find(ctx, b)
	if err != nil {
		return err
	}
	if len(have) == 0 {
		return errors.New("proxy not found")
	}
	return f.ports.PortsRemove(ctx, f.machine.ID, have)
}

func (f *forwarder) all(w http.ResponseWriter, r *http.Request) {
	have, err := f.ports.Ports(r.Context(), f.machine.ID)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	out := []exposed{}
	for _, p := range have {
		to := f.machine.Endpoints[0].IPv4.Addr()
		if !to.IsValid() {
			to = f.machine.Endpoints[0].IPv6.Addr()
		}
		out = append(out, exposed{p.Host.String(), netip.AddrPortFrom(to, p.Port).String(), string(p.Proto)})
	}
	_ = json.NewEncoder(w).Encode(out) // a client that is gone
}

func (f *forwarder) leases(w http.ResponseWriter, _ *http.Request) {
	out := map[string]string{}
	for _, e := range f.machine.Endpoints {
		if e.IPv4.IsValid() {
			out[e.IPv4.Addr().String()] = e.MAC.String()
		}
	}
	_ = json.NewEncoder(w).Encode(out) // a client that is gone
}
