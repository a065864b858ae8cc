package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// STUN (RFC 8489): a header of 20 bytes with the magic cookie, then attributes.
const (
	stunCookie       = 0x2112a442
	stunRequest      = 0x0001 // Binding request
	stunSuccess      = 0x0101 // Binding success response
	stunXORMapped    = 0x0020 // XOR-MAPPED-ADDRESS
	stunHeaderLength = 20
)

// stunServe: ADDR. It prints "listening" and tells each client its address as it is seen here.
func stunServe(args []string) error {
	c, err := net.ListenPacket("udp4", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		if n < stunHeaderLength || binary.BigEndian.Uint16(b) != stunRequest ||
			binary.BigEndian.Uint32(b[4:]) != stunCookie {
			continue
		}
		at := from.(*net.UDPAddr).AddrPort()
		r := make([]byte, stunHeaderLength, stunHeaderLength+12)
		copy(r, b[:stunHeaderLength])
		binary.BigEndian.PutUint16(r, stunSuccess)
		binary.BigEndian.PutUint16(r[2:], 12)
		r = binary.BigEndian.AppendUint16(r, stunXORMapped)
		r = binary.BigEndian.AppendUint16(r, 8)
		r = append(r, 0, 1)
		r = binary.BigEndian.AppendUint16(r, at.Port()^uint16(stunCookie>>16))
		four := at.Addr().Unmap().As4()
		r = binary.BigEndian.AppendUint32(r, binary.BigEndian.Uint32(four[:])^stunCookie)
		c.WriteTo(r, from)
	}
}

// stun: ADDR ADDR... It asks each server from one socket and prints the addresses that they see.
func stun(args []string) error {
	c, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		return err
	}
	defer c.Close()
	for _, server := range args {
		to, err := net.ResolveUDPAddr("udp4", server)
		if err != nil {
			return err
		}
		mapped, err := askSTUN(c, to)
		if err != nil {
			return fmt.Errorf("%s: %w", server, err)
		}
		fmt.Println(mapped)
	}
	return nil
}

func askSTUN(c net.PacketConn, to net.Addr) (netip.AddrPort, error) {
	request := make([]byte, stunHeaderLength)
	binary.BigEndian.PutUint16(request, stunRequest)
	binary.BigEndian.PutUint32(request[4:], stunCookie)
	for i := 8; i < stunHeaderLength; i++ {
		request[i] = byte(rand.Uint32())
	}
	b := make([]byte, 1500)
	for range 5 { // a datagram may be lost
		if _, err := c.WriteTo(request, to); err != nil {
			return netip.AddrPort{}, err
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, _, err := c.ReadFrom(b)
		if err != nil || n < stunHeaderLength+12 || string(b[8:stunHeaderLength]) != string(request[8:]) ||
			binary.BigEndian.Uint16(b) != stunSuccess {
			continue
		}
		var four [4]byte
		binary.BigEndian.PutUint32(four[:], binary.BigEndian.Uint32(b[stunHeaderLength+8:])^stunCookie)
		return netip.AddrPortFrom(
			netip.AddrFrom4(four),
			binary.BigEndian.Uint16(b[stunHeaderLength+6:])^uint16(stunCookie>>16),
		), nil
	}
	return netip.AddrPort{}, errors.New("no answer")
}
