package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"golang.org/x/net/ipv4"
)

// udpServe: ADDR. It prints "listening" and sends each datagram back, after the sender's address.
func udpServe(args []string) error {
	c, err := net.ListenPacket("udp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	datagram := make([]byte, 65536)
	for {
		n, from, err := c.ReadFrom(datagram)
		if err != nil {
			return err
		}
		answer := datagram[:n]
		if arg(args, 1, "echo") == "addr" {
			answer = []byte(from.String())
		}
		c.WriteTo(answer, from)
	}
}

// udpDial: ADDR [BYTES]. Without BYTES it sends one word and prints the answer or the name of the
// error number; with BYTES it sends a datagram of that size and wants the same one back.
func udpDial(args []string) error {
	c, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	sent := []byte("hello")
	if len(args) > 1 {
		size, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		sent = make([]byte, size)
		for i := range sent {
			sent[i] = byte(rand.Uint32())
		}
	}
	got := make([]byte, 65536)
	var n int
	for range 5 { // a datagram may be lost
		if _, err = c.Write(sent); err != nil {
			break
		}
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err = c.Read(got); err == nil || errorName(err) != "timeout" {
			break
		}
	}
	switch {
	case err != nil:
		fmt.Println(errorName(err))
	case len(args) < 2:
		fmt.Println(string(got[:n]))
	case bytes.Equal(sent, got[:n]):
		fmt.Println("same", n)
	default:
		return fmt.Errorf("sent %d bytes, got %d others", len(sent), n)
	}
	return nil
}

// udpMap: ADDR ADDR... It sends from one socket to servers that answer with the sender's address, and
// prints the answers.
func udpMap(args []string) error {
	c, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return err
	}
	defer c.Close()
	got := make([]byte, 1500)
	for _, server := range args {
		to, err := net.ResolveUDPAddr("udp", server)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo([]byte("who am I"), to); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err := c.ReadFrom(got)
		if err != nil {
			return err
		}
		fmt.Println(string(got[:n]))
	}
	return nil
}

// multicastRecv: IFACE GROUP:PORT. It joins the group, prints "listening", then the first datagram.
func multicastRecv(args []string) error {
	iface, group, err := multicast(args)
	if err != nil {
		return err
	}
	c, err := net.ListenMulticastUDP("udp4", iface, group)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	datagram := make([]byte, 1500)
	n, from, err := c.ReadFromUDPAddrPort(datagram)
	if err != nil {
		return err
	}
	fmt.Println(from.Addr().Unmap(), string(datagram[:n]))
	return nil
}

// multicastSend: IFACE GROUP:PORT WORD.
func multicastSend(args []string) error {
	iface, group, err := multicast(args)
	if err != nil {
		return err
	}
	c, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := ipv4.NewPacketConn(c).SetMulticastInterface(iface); err != nil {
		return err
	}
	_, err = c.WriteTo([]byte(args[2]), group)
	return err
}

func multicast(args []string) (*net.Interface, *net.UDPAddr, error) {
	iface, err := net.InterfaceByName(args[0])
	if err != nil {
		return nil, nil, err
	}
	group, err := net.ResolveUDPAddr("udp4", args[1])
	return iface, group, err
}
