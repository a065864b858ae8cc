package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// generatorCommand is the first argument that makes this program a load generator, or what answers one: for what iperf3
// does not measure.
const generatorCommand = "generator"

// The first byte of a connection to the generator's server says what it is for.
const (
	wantEcho  = 'e' // each byte back
	wantCount = 'n' // how many datagrams have come since the last time; eight bytes, big-endian
	wantBytes = 'b' // the same in bytes, and from now on several datagrams are read at once
)

// generated is what a client prints.
type generated struct {
	Rate float64 // per second, or Gbit/s
	P50  float64 // microseconds
	P99  float64
	Loss float64 // 0 to 1
}

// generate runs serve ADDRESS, or a client: rr|connect|udp|udpback|udpgso ADDRESS SECONDS [BYTES].
func generate(args []string) error {
	if len(args) == 2 && args[0] == "serve" {
		return serveGenerator(args[1])
	}
	if len(args) < 3 {
		return errors.New("generator: serve ADDRESS | rr|connect|udp|udpback|udpgso ADDRESS SECONDS [BYTES]")
	}
	seconds, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	size := 64
	if len(args) > 3 {
		if size, err = strconv.Atoi(args[3]); err != nil {
			return err
		}
	}
	length := time.Duration(seconds) * time.Second
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var g generated
		switch args[0] {
		case "rr":
			g, err = roundTrips(args[1], length)
		case "connect":
			g, err = connections(args[1], length)
		case "udp":
			g, err = datagrams(args[1], length, size)
		case "udpgso":
			g, err = superDatagrams(args[1], length, size)
		case "udpback":
			g, err = datagramsBack(args[1], length, size)
		default:
			err = fmt.Errorf("generator: %s?", args[0])
		}
		if err == nil {
			return json.NewEncoder(os.Stdout).Encode(g)
		}
		if time.Now().After(end) { // the server may not be there yet
			return err
		}
	}
}

func serveGenerator(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	raw, err := pc.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	merge := func(on int) { // several datagrams of one sender in one read (udp(7), UDP_GRO)
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, on) })
	}
	var reads, bytes atomic.Uint64
	go serveDatagrams(pc, &reads, &bytes)
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			b := make([]byte, 1)
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if b[0] != wantEcho {
				n, size, on := reads.Swap(0), bytes.Swap(0), 0
				if b[0] == wantBytes {
					n, on = size, 1
				}
				merge(on)
				_ = binary.Write(c, binary.BigEndian, n) // the client sees that it did not come
				return
			}
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		}()
	}
}

// serveDatagrams counts datagrams. One of eight bytes asks for datagrams back: of how many bytes, for how many
// milliseconds.
func serveDatagrams(pc net.PacketConn, reads, bytes *atomic.Uint64) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := pc.ReadFrom(b)
		if err != nil {
			return
		}
		if n != 8 {
			reads.Add(1)
			bytes.Add(uint64(n))
			continue
		}
		size, length := binary.BigEndian.Uint32(b), time.Duration(binary.BigEndian.Uint32(b[4:]))*time.Millisecond
		go func() {
			out := make([]byte, size)
			for end, i := time.Now().Add(length), 0; i%64 != 0 || time.Now().Before(end); i++ {
				_, _ = pc.WriteTo(out, from) // a full queue is part of what is measured
			}
		}()
	}
}

// roundTrips sends a byte back and forth over one connection.
func roundTrips(address string, length time.Duration) (generated, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return generated{}, err
	}
	defer c.Close()
	b := []byte{wantEcho}
	var took []float64
	began := time.Now()
	for last := began; last.Sub(began) < length; {
		if _, err := c.Write(b); err != nil {
			return generated{}, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return generated{}, err
		}
		now := time.Now()
		took = append(took, float64(now.Sub(last).Nanoseconds())/1000)
		last = now
	}
	return summary(took, length), nil
}

func summary(took []float64, length time.Duration) generated {
	slices.Sort(took)
	return generated{Rate: float64(len(took)) / length.Seconds(), P50: took[len(took)/2], P99: took[len(took)*99/100]}
}

// connections opens and closes them, four at a time, each for one byte there and back.
func connections(address string, length time.Duration) (generated, error) {
	var mu sync.Mutex
	var took []float64
	var failed error
	var wg sync.WaitGroup
	end := time.Now().Add(length)
	for range 4 {
		wg.Go(func() {
			b := []byte{wantEcho}
			for time.Now().Before(end) {
				began := time.Now()
				c, err := net.Dial("tcp", address)
				if err == nil {
					if _, err = c.Write(b); err == nil {
						_, err = io.ReadFull(c, b)
					}
					c.(*net.TCPConn).SetLinger(0) // no ports are left in TIME_WAIT
					c.Close()
				}
				mu.Lock()
				if err != nil {
					failed = err
					end = time.Now()
				} else {
					took = append(took, float64(time.Since(began).Nanoseconds())/1000)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if failed != nil || len(took) == 0 {
		return generated{}, fmt.Errorf("connections: %w", failed)
	}
	return summary(took, length), nil
}

// datagrams sends as fast as it can, and asks the server how many have come.
func datagrams(address string, length time.Duration, size int) (generated, error) {
	if _, err := arrived(address, wantCount); err != nil {
		return generated{}, err
	}
	c, err := net.Dial("udp", address)
	if err != nil {
		return generated{}, err
	}
	defer c.Close()
	b := make([]byte, size)
	sent := 0
	for end := time.Now().Add(length); sent%64 != 0 || time.Now().Before(end); sent++ {
		_, _ = c.Write(b) // a full queue is part of what is measured
	}
	time.Sleep(200 * time.Millisecond) // for those on the way
	n, err := arrived(address, wantCount)
	return generated{Rate: float64(n) / length.Seconds(), Loss: 1 - float64(n)/float64(sent)}, err
}

// superDatagrams sends datagrams of one size as many at a time as the kernel takes (udp(7), UDP_SEGMENT), and counts in
// Gbit/s of payload what arrives.
func superDatagrams(address string, length time.Duration, size int) (generated, error) {
	if _, err := arrived(address, wantBytes); err != nil {
		return generated{}, err
	}
	defer arrived(address, wantCount) // for the next measurement
	conn, err := net.Dial("udp", address)
	if err != nil {
		return generated{}, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return generated{}, err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size)
	})
	if err != nil || serr != nil {
		return generated{}, errors.Join(err, serr)
	}
	b := make([]byte, min(maxSegments, 65000/size)*size)
	sent := 0
	for end := time.Now().Add(length); time.Now().Before(end); sent += len(b) {
		_, _ = conn.Write(b) // a full queue is part of what is measured
	}
	time.Sleep(200 * time.Millisecond) // for those on the way
	n, err := arrived(address, wantBytes)
	return generated{Rate: float64(n) * 8 / 1e9 / length.Seconds(), Loss: 1 - float64(n)/float64(sent)}, err
}

// maxSegments is UDP_MAX_SEGMENTS of include/linux/udp.h before Linux 6.9.
const maxSegments = 64

func arrived(address string, what byte) (n uint64, err error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write([]byte{what}); err != nil {
		return 0, err
	}
	err = binary.Read(c, binary.BigEndian, &n)
	return n, err
}

// datagramsBack asks for datagrams and counts what comes.
func datagramsBack(address string, length time.Duration, size int) (generated, error) {
	c, err := net.Dial("udp", address)
	if err != nil {
		return generated{}, err
	}
	defer c.Close()
	var ask [8]byte
	binary.BigEndian.PutUint32(ask[:], uint32(size))
	binary.BigEndian.PutUint32(ask[4:], uint32(length.Milliseconds()))
	if _, err := c.Write(ask[:]); err != nil {
		return generated{}, err
	}
	n, b := 0, make([]byte, 1<<16)
	_ = c.SetReadDeadline(time.Now().Add(length + 200*time.Millisecond))
	for {
		if _, err := c.Read(b); err != nil {
			break
		}
		n++
	}
	if n == 0 {
		return generated{}, errors.New("no datagram came back")
	}
	return generated{Rate: float64(n) / length.Seconds()}, nil
}
