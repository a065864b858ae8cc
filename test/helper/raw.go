package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// l2Raw: IFACE COUNT HEX... It sends each frame COUNT times.
func l2Raw(args []string) error {
	iface, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	fd, err := rawSocket(iface, unix.ETH_P_ALL)
	if err != nil {
		return err
	}
	for _, text := range args[2:] {
		frame, err := hex.DecodeString(text)
		if err != nil {
			return err
		}
		for range count {
			if _, err := unix.Write(fd, frame); err != nil {
				return fmt.Errorf("frame %s: %w", text, err)
			}
		}
	}
	return nil
}

// l2Watch: IFACE SECONDS WORD LAST. It prints "listening", then every incoming frame with WORD in it, until one with
// LAST comes, and how many there were.
func l2Watch(args []string) error {
	iface, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	seconds, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	fd, err := rawSocket(iface, unix.ETH_P_ALL)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	frame := make([]byte, 1<<16)
	count := 0
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		timeout := unix.NsecToTimeval(time.Until(end).Nanoseconds() + 1000)
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return err
		}
		n, from, err := unix.Recvfrom(fd, frame, 0)
		if link, ok := from.(*unix.SockaddrLinklayer); err != nil || ok && link.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if bytes.Contains(frame[:n], []byte(args[2])) {
			count++
			fmt.Printf("%x\n", frame[:n])
		}
		if bytes.Contains(frame[:n], []byte(args[3])) {
			fmt.Println("seen", count)
			return nil
		}
	}
	return fmt.Errorf("no frame with %q in %d s", args[3], seconds)
}

// udpEmpty: ADDR. It sends an empty datagram and prints how many bytes come back.
func udpEmpty(args []string) error {
	c, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	got := make([]byte, 100)
	for range 5 { // a datagram may be lost
		if _, err = c.Write(nil); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, err := c.Read(got)
		if err == nil {
			fmt.Println("got", n)
			return nil
		}
	}
	return err
}
