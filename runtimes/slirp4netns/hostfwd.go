package slirp4netns

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Publisher binds host ports. Its methods may be called by many goroutines at once.
type Publisher interface {
	// Publish forwards a host port to a port of the guest until it is unpublished. proto is tcp or udp.
	Publish(ctx context.Context, proto string, host, guest netip.AddrPort) (unpublish func() error, err error)
}

const (
	// maxRequest is slirp4netns's limit, in bytes, on one request.
	maxRequest = 4096
	// maxDiscarded bounds what is read of a request that is too large, in bytes.
	maxDiscarded = 1 << 20
	// requestTimeout is how long a client may take: slirp4netns has no limit, and waits with everything it does.
	requestTimeout = 10 * time.Second
	// maxClients is how many requests are read at once.
	maxClients = 16
)

// hostfwd serves the API socket: one request for each connection, one answer, end.
type hostfwd struct {
	publisher Publisher
	guest     netip.Addr // default of guest_addr
	guest6    netip.Addr // for IPv6 host addresses; invalid: there is no IPv6
	log       *slog.Logger

	ports struct {
		sync.Mutex
		last int // id
		byID map[int]forwarded
	}
}

// forwarded is a port as list_hostfwd shows it.
type forwarded struct {
	ID        int    `json:"id"`
	Proto     string `json:"proto"`
	HostAddr  string `json:"host_addr"`
	HostPort  uint16 `json:"host_port"`
	GuestAddr string `json:"guest_addr"`
	GuestPort uint16 `json:"guest_port"`

	unpublish func() error
}

// apiError is an error in slirp4netns's words.
type apiError string

func (e apiError) Error() string { return string(e) }

// serve answers connections until ln is closed, and returns when the last one has ended.
func (h *hostfwd) serve(ctx context.Context, ln net.Listener) {
	var clients sync.WaitGroup
	defer clients.Wait()
	slots := make(chan struct{}, maxClients)
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		slots <- struct{}{}
		clients.Go(func() {
			defer func() { <-slots }()
			h.answer(ctx, c)
		})
	}
}

func (h *hostfwd) answer(ctx context.Context, c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(requestTimeout)) // a Unix socket has deadlines
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	buf := make([]byte, maxRequest)
	n, err := c.Read(buf) // the request is what one read brings, as slirp4netns has it
	if err != nil && !errors.Is(err, io.EOF) {
		return
	}
	result, err := h.handle(ctx, buf[:n])
	if err != nil {
		h.log.Warn("api request refused", "request", string(buf[:n]), "error", err)
		result = map[string]any{"error": map[string]string{"desc": "bad request: " + err.Error()}}
	}
	b, err := json.Marshal(result)
	if err == nil {
		_, _ = c.Write(b) // a client that is gone does not want it
	}
	if u, ok := c.(*net.UnixConn); ok && n == len(buf) { // with something unread, the client would be told of a reset
		_ = u.CloseWrite()
		_, _ = io.CopyN(io.Discard, c, maxDiscarded)
	}
}

// request is what clients send beside the command. Arguments that slirp4netns reads as numbers may be fractions.
type request struct {
	Arguments struct {
		Proto     string
		HostAddr  string  `json:"host_addr"`
		HostPort  float64 `json:"host_port"`
		GuestAddr string  `json:"guest_addr"`
		GuestPort float64 `json:"guest_port"`
		ID        float64
	}
}

func (h *hostfwd) handle(ctx context.Context, b []byte) (any, error) {
	if len(b) >= maxRequest {
		return nil, apiError("too large message")
	}
	if !json.Valid(b) {
		return nil, apiError("cannot parse JSON")
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(b, &object) != nil || object == nil {
		return nil, apiError("json_object() failed")
	}
	var execute *string
	if json.Unmarshal(object["execute"], &execute) != nil || execute == nil {
		return nil, apiError("no execute found")
	}
	var r request
	err := json.Unmarshal(b, &r) // an argument of another type is as good as a missing one
	switch *execute {
	case "add_hostfwd":
		return h.add(ctx, r)
	case "list_hostfwd":
		return h.entries(), nil
	case "remove_hostfwd":
		if err != nil {
			return nil, apiError("remove_hostfwd: bad arguments.id")
		}
		return h.remove(int(r.Arguments.ID))
	}
	return nil, apiError("unknown execute")
}

func (h *hostfwd) add(ctx context.Context, r request) (any, error) {
	a := r.Arguments
	if a.Proto != "tcp" && a.Proto != "udp" {
		return nil, apiError("add_hostfwd: bad arguments.proto")
	}
	host := netip.IPv4Unspecified()
	if a.HostAddr != "" {
		var err error
		if host, err = netip.ParseAddr(a.HostAddr); err != nil || host.Zone() != "" ||
			host.Is6() && !h.guest6.IsValid() {
			return nil, apiError("add_hostfwd: bad arguments.host_addr")
		}
	}
	hostPort, ok := port(a.HostPort)
	if !ok {
		return nil, apiError("add_hostfwd: bad arguments.host_port")
	}
	guest := h.guest
	if host.Is6() {
		guest = h.guest6
	}
	if a.GuestAddr != "" {
		var err error
		if guest, err = netip.ParseAddr(a.GuestAddr); err != nil || guest.Zone() != "" || guest.Is4() != host.Is4() {
			return nil, apiError("add_hostfwd: bad arguments.guest_addr")
		}
	}
	guestPort, ok := port(a.GuestPort)
	if !ok {
		return nil, apiError("add_hostfwd: bad arguments.guest_port")
	}
	from, to := netip.AddrPortFrom(host, hostPort), netip.AddrPortFrom(guest, guestPort)
	unpublish, err := h.publisher.Publish(ctx, a.Proto, from, to)
	if err != nil {
		return nil, apiError("add_hostfwd: slirp_add_hostfwd failed: " + err.Error())
	}
	h.ports.Lock()
	defer h.ports.Unlock()
	h.ports.last++
	if h.ports.byID == nil {
		h.ports.byID = map[int]forwarded{}
	}
	h.ports.byID[h.ports.last] = forwarded{
		ID: h.ports.last, Proto: a.Proto,
		HostAddr: host.String(), HostPort: hostPort,
		GuestAddr: guest.String(), GuestPort: guestPort,
		unpublish: unpublish,
	}
	return map[string]any{"return": map[string]int{"id": h.ports.last}}, nil
}

// port reads a port's number. slirp4netns takes what is beyond 65535 and publishes the rest of a division.
func port(n float64) (uint16, bool) {
	if n < 1 || n > 65535 || n != float64(uint16(n)) {
		return 0, false
	}
	return uint16(n), true
}

// entries is the list, without the "return" that all other answers have.
func (h *hostfwd) entries() any {
	h.ports.Lock()
	defer h.ports.Unlock()
	list := make([]forwarded, 0, len(h.ports.byID)) // "[]" where it is empty, not null
	for _, id := range slices.Sorted(maps.Keys(h.ports.byID)) {
		list = append(list, h.ports.byID[id])
	}
	return map[string]any{"entries": list}
}

func (h *hostfwd) remove(id int) (any, error) {
	h.ports.Lock()
	defer h.ports.Unlock()
	f, ok := h.ports.byID[id]
	if !ok {
		return nil, apiError("remove_hostfwd: bad arguments.id")
	}
	if err := f.unpublish(); err != nil {
		return nil, apiError("remove_hostfwd: slirp_remove_hostfwd failed: " + err.Error())
	}
	delete(h.ports.byID, id)
	return map[string]any{"return": struct{}{}}, nil
}
