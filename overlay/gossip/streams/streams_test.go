package streams

import (
	"errors"
	"io"
	"log"
	"net"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

const patience = 30 * time.Second

func open(t *testing.T) (*Transport, func() net.Conn) {
	t.Helper()
	tr, err := New(&memberlist.NetTransportConfig{
		BindAddrs: []string{"127.0.0.1"}, Logger: log.New(io.Discard, "", 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return tr, func() net.Conn {
		c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tr.GetAutoBindPort()})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
}

// next is the next connection that memberlist gets.
func next(t *testing.T, tr *Transport) net.Conn {
	t.Helper()
	select {
	case c := <-tr.StreamCh():
		t.Cleanup(func() { _ = c.Close() })
		return c
	case <-time.After(patience):
		t.Fatal("no connection comes")
		return nil
	}
}

// TestStrangersHoldFewConnections has one address open more than its share, and end one of them.
func TestStrangersHoldFewConnections(t *testing.T) {
	tr, dial := open(t)
	var held []net.Conn
	for range maxStreamsFromAddr {
		dial()
		held = append(held, next(t, tr))
	}
	refused := func() {
		t.Helper()
		if n, err := dial().Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("one more than %d was not closed: %d, %v", maxStreamsFromAddr, n, err)
		}
	}
	refused()
	for range 2 { // closing again gives nothing back
		_ = held[0].Close()
	}
	dial()
	next(t, tr)
	refused()
}

// TestStrangersSendLittle has one send beyond its share, which another connection has again when it is closed.
func TestStrangersSendLittle(t *testing.T) {
	tr, dial := open(t)
	for range 2 {
		c := dial()
		go func() { _, _ = c.Write(make([]byte, maxBytesFromAddr+1)) }()
		got := next(t, tr)
		_ = got.SetDeadline(time.Now().Add(patience))
		n, err := io.Copy(io.Discard, got)
		_ = got.Close()
		if !errors.Is(err, errTooMuch) || n > maxBytesFromAddr {
			t.Fatalf("read %d bytes, %v", n, err)
		}
	}
}

// TestShutdownWaitsForNobody has connections come that nobody takes.
func TestShutdownWaitsForNobody(t *testing.T) {
	tr, dial := open(t)
	dial()
	dial()
	ended := make(chan error, 1)
	go func() { ended <- tr.Shutdown() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it waits for somebody who takes connections")
	}
}

func TestASubnetOfIPv6IsOneClient(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.1:7": "192.0.2.1", "[::ffff:192.0.2.1]:7": "192.0.2.1",
		"[2001:db8::1]:7": "2001:db8::/64", "[fe80::1%lo]:7": "fe80::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", from)
		if err != nil {
			t.Fatal(err)
		}
		if got := client(a); got != want {
			t.Errorf("%s is %s, want %s", from, got, want)
		}
	}
}
