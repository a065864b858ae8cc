package seal

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"github.com/usernet/usernet/overlay"
)

const (
	// Overhead is what sealing adds to a datagram's payload, in bytes, besides the padding: IPv6 and UDP inside, and
	// WireGuard's header and authenticator (WireGuard whitepaper, 5.4.6).
	Overhead = innerHeaders + 32
	// Padding is what the inside of a WireGuard packet is a multiple of, in bytes.
	Padding = 16

	innerHeaders = 40 + 8 // IPv6, UDP
	// BatchSize is how many packets go in and out at once.
	BatchSize = 128
)

// Room is how large the payload of a datagram may be that leaves in a UDP payload of n bytes.
func Room(n int) int { return (n-32)&^(Padding-1) - innerHeaders }

// Config is what a Tunnel needs. All fields but Logger are needed.
type Config struct {
	Key PrivateKey
	// Bind sends and receives what is sealed. Its ParseEndpoint gets host ids.
	Bind conn.Bind
	// Receive gets datagrams of one peer, by its address inside the tunnel. It is called by one goroutine for each
	// peer, and the datagrams are valid until it returns, and its to change.
	Receive func(from netip.Addr, datagrams [][]byte)
	Logger  *slog.Logger // nil: slog.Default
}

// Tunnel is this host's end. Make it with New, end it with Close. Its methods may be called by many goroutines at once.
type Tunnel struct {
	cfg   Config
	own   netip.Addr
	dev   *device.Device
	queue *queue

	mu    sync.Mutex // guards peers
	peers map[overlay.Key]overlay.HostID
}

// New starts the tunnel, and with it calls Bind.Open.
func New(cfg Config) (*Tunnel, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	t := &Tunnel{cfg: cfg, own: Addr(cfg.Key.Public()), peers: map[overlay.Key]overlay.HostID{}}
	t.queue = newQueue(t)
	debug := func(format string, args ...any) { cfg.Logger.Debug("wireguard", "says", fmt.Sprintf(format, args...)) }
	t.dev = device.NewDevice(t.queue, cfg.Bind, &device.Logger{Verbosef: device.DiscardLogf, Errorf: debug})
	err := t.dev.IpcSet("private_key=" + hex.EncodeToString(cfg.Key[:]) + "\n")
	if err == nil {
		err = t.dev.Up()
	}
	if err != nil {
		t.dev.Close()
		return nil, fmt.Errorf("start WireGuard: %w", err)
	}
	return t, nil
}

// Close ends the tunnel, and with it calls Bind.Close.
func (t *Tunnel) Close() { t.dev.Close() }

// SetPeers says which hosts there are and their keys, in the place of what was said before. A session with a host that
// stays is not touched.
func (t *Tunnel) SetPeers(peers map[overlay.HostID]overlay.Key) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := map[overlay.Key]overlay.HostID{}
	own := t.cfg.Key.Public()
	var b strings.Builder
	for h, k := range peers {
		if k == own || next[k] != "" {
			continue // nobody has this host's key, and two hosts have two
		}
		next[k] = h
		if t.peers[k] != h {
			fmt.Fprintf(
				&b,
				"public_key=%x\nreplace_allowed_ips=true\nallowed_ip=%v/128\nendpoint=%s\n",
				k[:],
				Addr(k),
				h,
			)
		}
	}
	for k := range t.peers {
		if next[k] == "" {
			fmt.Fprintf(&b, "public_key=%x\nremove=true\n", k[:])
		}
	}
	if b.Len() == 0 {
		return nil
	}
	if err := t.dev.IpcSet(b.String()); err != nil {
		return fmt.Errorf("tell WireGuard of the hosts: %w", err)
	}
	t.peers = next
	return nil
}

// Restart forgets at which address a host was last heard, and shakes hands again: with all addresses that
// ParseEndpoint's endpoint knows of it.
func (t *Tunnel) Restart(k overlay.Key) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.peers[k]
	if h == "" {
		return errors.New("no such host")
	}
	if err := t.dev.IpcSet(fmt.Sprintf("public_key=%x\nupdate_only=true\nendpoint=%s\n", k[:], h)); err != nil {
		return fmt.Errorf("tell WireGuard to forget an address: %w", err)
	}
	if p := t.dev.LookupPeer(device.NoisePublicKey(k)); p != nil {
		return p.SendHandshakeInitiation(false)
	}
	return nil
}

// Session is what WireGuard knows of a host.
type Session struct {
	Endpoint string // what the endpoint's DstToString says: where the host was last heard
}

// Sessions are those of all hosts, by their keys.
func (t *Tunnel) Sessions() (map[overlay.Key]Session, error) {
	text, err := t.dev.IpcGet()
	if err != nil {
		return nil, fmt.Errorf("ask WireGuard for its sessions: %w", err)
	}
	all := map[overlay.Key]Session{}
	var key overlay.Key
	var s Session
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "public_key":
			b, err := hex.DecodeString(value)
			if err != nil || len(b) != len(key) {
				return nil, fmt.Errorf("WireGuard's key %.70q", value)
			}
			key, s = overlay.Key(b), Session{}
		case "endpoint":
			s.Endpoint = value
		}
		if key != (overlay.Key{}) {
			all[key] = s
		}
	}
	return all, nil
}
