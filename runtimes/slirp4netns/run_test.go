package slirp4netns

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

var testMAC = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 7}

// startBESS runs the program for a socket of frames and returns the guest's end of it.
func startBESS(t *testing.T, args ...string) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "frames.sock")
	o, err := Parse(append(args, "--target-type=bess", path))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, o, nil, io.Discard, slog.New(slog.DiscardHandler)) }()
	var c *net.UnixConn
	for deadline := time.Now().Add(30 * time.Second); c == nil; time.Sleep(5 * time.Millisecond) {
		if c, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"}); err != nil &&
			time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = c.Close()
	})
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// receive returns the first frame that is wanted.
func receive(t *testing.T, c net.Conn, wanted func([]byte) bool) []byte {
	t.Helper()
	buf := make([]byte, 2048)
	for {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if wanted(buf[:n]) {
			return bytes.Clone(buf[:n])
		}
	}
}

// TestFramesOverASocket: the gateway and the name server answer ARP, and the DHCP server gives the first of its
// addresses.
func TestFramesOverASocket(t *testing.T) {
	c := startBESS(t, "--cidr=10.9.0.0/24")
	for _, last := range []byte{2, 3} {
		request := append(bytes.Repeat([]byte{0xff}, 6), testMAC...)
		request = append(request, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1) // ARP, Ethernet and IPv4, request (RFC 826)
		request = append(append(request, testMAC...), 10, 9, 0, 15)
		request = append(request, 0, 0, 0, 0, 0, 0, 10, 9, 0, last)
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		reply := receive(t, c, func(f []byte) bool {
			return len(f) >= 42 && f[12] == 0x08 && f[13] == 0x06 && f[21] ==
				2
		})
		if !bytes.Equal(reply[28:32], []byte{10, 9, 0, last}) {
			t.Errorf("asked for .%d, answered for %v", last, net.IP(reply[28:32]))
		}
	}
	discover, err := dhcpv4.NewDiscovery(testMAC)
	if err != nil {
		t.Fatal(err)
	}
	payload := discover.ToBytes()
	size := 20 + 8 + len(payload)
	frame := append(append(bytes.Repeat([]byte{0xff}, 6), testMAC...), 0x08, 0x00)
	frame = append(frame, 0x45, 0, byte(size>>8), byte(size), 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255)
	var sum uint32 // of the header: RFC 791
	for i := 14; i < 34; i += 2 {
		sum += uint32(frame[i])<<8 | uint32(frame[i+1])
	}
	sum = ^(sum>>16 + sum&0xffff)
	frame[24], frame[25] = byte(sum>>8), byte(sum)
	frame = append(frame, 0, 68, 0, 67, byte((size-20)>>8), byte(size-20), 0, 0)
	if _, err := c.Write(append(frame, payload...)); err != nil {
		t.Fatal(err)
	}
	offer := receive(t, c, func(f []byte) bool {
		return len(f) > 42 && f[12] == 0x08 && f[13] == 0 && f[23] == 17 &&
			f[37] == 68
	})
	m, err := dhcpv4.FromBytes(offer[42:])
	if err != nil || m.YourIPAddr.String() != "10.9.0.15" || len(m.DNS()) != 1 || m.DNS()[0].String() != "10.9.0.3" {
		t.Errorf("offered %v, %v", m, err)
	}
}

// TestReadyAndExitDescriptors: "1" is written once the network works, and the end of the exit pipe is the program's.
func TestReadyAndExitDescriptors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "frames.sock")
	ready, readyEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	exitEnd, exit, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = ready.Close(), exitEnd.Close() })
	own, err := unix.Dup(int(readyEnd.Fd())) // the program closes it
	if err != nil {
		t.Fatal(err)
	}
	_ = readyEnd.Close()
	o, err := Parse([]string{"--target-type=bess", "-r", strconv.Itoa(own), "-e", strconv.Itoa(int(exitEnd.Fd())),
		path})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- Run(context.Background(), o, nil, io.Discard, slog.New(slog.DiscardHandler)) }()
	var c net.Conn
	for deadline := time.Now().Add(30 * time.Second); c == nil; time.Sleep(5 * time.Millisecond) {
		if c, err = net.Dial("unixpacket", path); err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer c.Close()
	if b, err := io.ReadAll(io.LimitReader(ready, 1)); err != nil || string(b) != "1" {
		t.Errorf("the ready descriptor says %q, %v", b, err)
	}
	select {
	case err := <-ended:
		t.Fatalf("ended with the exit descriptor open: %v", err)
	default:
	}
	if err := exit.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the program goes on after the exit descriptor's end")
	}
}

func TestClosedDescriptorsAreRefused(t *testing.T) {
	o, err := Parse([]string{"--target-type=bess", "-r", "1048575", filepath.Join(t.TempDir(), "x")})
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(context.Background(), o, nil, io.Discard, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a descriptor that is not open was accepted")
	}
}
