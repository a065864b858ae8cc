package forwarder

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/packet"
)

// TestFullTableServesNewcomers fills each table with what is never answered, and then with what was.
func TestFullTableServesNewcomers(t *testing.T) {
	const limit = 8
	w := newWorld(t, func(c *Config) { c.Limits = Limits{UDP: limit, Clients: limit, Echo: limit} })
	port := echoUDP(t)
	service := w.socket(t, 53)
	go func() { // answers what begins with "answer"
		b := make([]byte, 100)
		for {
			n, from, err := service.ReadFrom(b)
			if err != nil {
				return
			}
			if string(b[:min(n, 6)]) == "answer" {
				_, _ = service.WriteTo(b[:n], from)
			}
		}
	}()
	public := w.publish(t, 53, "udp").Host.String()
	client := func() net.Conn {
		c, err := net.Dial("udp", public)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	asks := func(c net.Conn) {
		t.Helper()
		eventually(t, func() error {
			_, _ = c.Write([]byte("answer"))
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			_, err := c.Read(make([]byte, 100))
			return err
		})
	}
	kept := client()
	asks(kept)
	for range 4 * limit { // from forged sources, say
		if _, err := client().Write([]byte("silence")); err != nil {
			t.Fatal(err)
		}
	}
	asks(client())
	asks(kept) // which has not been given up, and goes on under its own name
	for range 4 * limit {
		asks(client())
	}
	// The container's own datagrams have room of their own, and give way to each other in the same way.
	out := func(from uint16) {
		t.Helper()
		c := w.socket(t, from)
		eventually(t, func() error {
			if _, err := c.WriteTo([]byte("x"), gatewayPort(port)); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			_, _, err := c.ReadFrom(make([]byte, 10))
			return err
		})
		c.Close()
	}
	for i := range uint16(4 * limit) {
		w.HandleUDP(packet.Datagram{Src: netip.AddrPortFrom(containerAddr, 10000+i),
			Dst: netip.AddrPortFrom(gatewayAddr, 9), TTL: 64, Payload: []byte("x")})
	}
	for i := range uint16(2 * limit) {
		out(20000 + i)
	}
	for kind, n := range map[usageKind]int{useUDP: w.udp.Len(), useClients: w.inbound.Len()} {
		w.mu.Lock()
		counted := w.use[containerAddr][kind]
		w.mu.Unlock()
		if n == 0 || n > limit || counted != n {
			t.Errorf("%d mappings of kind %d, and %d are counted of %d", n, kind, counted, limit)
		}
	}
}

// TestBothDirectionsRefresh is RFC 4787 REQ-6.
func TestBothDirectionsRefresh(t *testing.T) {
	w := newWorld(t, nil)
	peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c := w.socket(t, 4000)
	if _, err := c.WriteTo([]byte("x"), gatewayPort(uint16(peer.LocalAddr().(*net.UDPAddr).Port))); err != nil {
		t.Fatal(err)
	}
	_ = peer.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, from, err := peer.ReadFrom(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	a := w.udp.Get(netip.AddrPortFrom(containerAddr, 4000))
	if a.Answered() {
		t.Error("it is answered before anybody has")
	}
	before := a.Idle()
	eventually(t, func() error { // it was idle for longer than before
		if a.Idle() <= before+10*time.Millisecond {
			return fmt.Errorf("time stands still")
		}
		return nil
	})
	eventually(t, func() error {
		idle := a.Idle()
		if _, err := peer.WriteTo([]byte("y"), from); err != nil {
			return err
		}
		if a.Idle() > idle || !a.Answered() {
			return fmt.Errorf("a datagram from outside does not count")
		}
		return nil
	})
}
