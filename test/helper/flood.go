package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// flood sends frames of one kind as fast as it can until its standard input ends, and then prints how many:
// KIND INTERFACE GATEWAY-MAC OWN-ADDRESS TARGET. Kinds: arp (requests, broadcast), udp (datagrams of one socket),
// fragment (first fragments of ever new datagrams), syn (connections from ever new ports).
func flood(args []string) error {
	if len(args) < 5 {
		return errors.New("usage: flood KIND INTERFACE GATEWAY-MAC OWN-ADDRESS TARGET")
	}
	iface, err := net.InterfaceByName(args[1])
	if err != nil {
		return err
	}
	gateway, err := net.ParseMAC(args[2])
	if err != nil {
		return err
	}
	own, err := netip.ParseAddr(args[3])
	if err != nil {
		return err
	}
	target, err := netip.ParseAddrPort(args[4])
	if err != nil {
		return err
	}
	frame, next := floodFrame(args[0], iface.HardwareAddr, gateway, own, target)
	if frame == nil {
		return fmt.Errorf("there is no flood of kind %s", args[0])
	}
	fd, err := rawSocket(iface, unix.ETH_P_ALL)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	fmt.Println("flooding")
	for n := 0; ; n++ {
		if n%1024 == 0 {
			select {
			case <-ended:
				fmt.Println("sent", n)
				return nil
			default:
			}
		}
		next(uint32(n))
		if _, err := unix.Write(fd, frame); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
}

// floodFrame returns a frame, and what makes it the n-th one.
func floodFrame(
	kind string,
	from, gateway net.HardwareAddr,
	own netip.Addr,
	target netip.AddrPort,
) (frame []byte, next func(n uint32)) {
	const ethernet, ip = 14, 14 + 20
	packet := func(proto byte, payload int) []byte {
		f := slices.Concat(gateway, from, []byte{8, 0}, make([]byte, 20+payload))
		b := f[ethernet:]
		b[0], b[8], b[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+payload))
		copy(b[12:], own.AsSlice())
		copy(b[16:], target.Addr().AsSlice())
		return f
	}
	sum := func(f []byte) {
		b := f[ethernet:ip]
		b[10], b[11] = 0, 0
		total := uint32(0)
		for i := 0; i < len(b); i += 2 {
			total += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		total = total>>16 + total&0xffff
		total += total >> 16
		binary.BigEndian.PutUint16(b[10:], ^uint16(total))
	}
	switch kind {
	case "arp":
		f := slices.Concat(
			[]byte{255, 255, 255, 255, 255, 255},
			from,
			[]byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1},
			from,
			own.AsSlice(),
			make([]byte, 6),
			target.Addr().AsSlice(),
			make([]byte, 18),
		)
		return f, func(uint32) {}
	case "udp":
		f := packet(unix.IPPROTO_UDP, 8+18)
		u := f[ip:]
		binary.BigEndian.PutUint16(u, 7000)
		binary.BigEndian.PutUint16(u[2:], target.Port())
		binary.BigEndian.PutUint16(u[4:], 8+18)
		sum(f)
		return f, func(uint32) {}
	case "fragment":
		f := packet(unix.IPPROTO_UDP, 64)
		binary.BigEndian.PutUint16(f[ethernet+6:], 0x2000) // more fragments
		return f, func(n uint32) {
			binary.BigEndian.PutUint16(f[ethernet+4:], uint16(n))
			sum(f)
		}
	case "syn":
		f := packet(unix.IPPROTO_TCP, 20)
		t := f[ip:]
		binary.BigEndian.PutUint16(t[2:], target.Port())
		t[12], t[13] = 5<<4, 2
		binary.BigEndian.PutUint16(t[14:], 65535)
		sum(f)
		return f, func(n uint32) {
			binary.BigEndian.PutUint16(t, uint16(1024+n%60000))
			binary.BigEndian.PutUint32(t[4:], n)
		}
	}
	return nil, nil
}

// latency makes requests one after another, with a pause of a millisecond between, and prints how long they took, in
// microseconds: NETWORK ADDRESS COUNT. A TCP request is a connection, a byte there and back, and its end; UDP ones
// share a socket. What has no answer in two seconds has failed.
func latency(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: latency NETWORK ADDRESS COUNT")
	}
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	var shared net.Conn
	request := func(i int) error {
		c := shared
		if c == nil {
			if c, err = net.DialTimeout(args[0], args[1], 2*time.Second); err != nil {
				return err
			}
			if args[0] == "udp" {
				shared = c
			} else {
				defer c.Close()
			}
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		text := fmt.Sprintf("%08d", i)
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		got := make([]byte, len(text))
		for string(got) != text { // a late answer to an earlier request is none
			if _, err := io.ReadFull(c, got); err != nil {
				return err
			}
		}
		return nil
	}
	var took []time.Duration
	failed := 0
	for i := range count {
		start := time.Now()
		if err := request(i); err != nil {
			failed++
		}
		took = append(took, time.Since(start))
		time.Sleep(time.Millisecond)
	}
	slices.Sort(took)
	at := func(share float64) int64 { return took[min(int(share*float64(len(took))), len(took)-1)].Microseconds() }
	fmt.Println("p50", at(.5), "p99", at(.99), "max", at(1), "failed", failed)
	return nil
}
