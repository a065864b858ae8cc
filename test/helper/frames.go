package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// rawSocket opens a packet socket for one EtherType on an interface (packet(7)).
func rawSocket(iface *net.Interface, etherType uint16) (int, error) {
	protocol := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, etherType)) // htons
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(protocol))
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: iface.Index})
}

// l2Args are the arguments that l2Send and l2Recv share: IFACE ETHERTYPE.
func l2Args(args []string) (*net.Interface, uint16, error) {
	iface, err := net.InterfaceByName(args[0])
	if err != nil {
		return nil, 0, err
	}
	etherType, err := strconv.ParseUint(args[1], 0, 16)
	return iface, uint16(etherType), err
}

// l2Send: IFACE ETHERTYPE DESTINATION TEXT [SOURCE]. It sends one frame.
func l2Send(args []string) error {
	iface, etherType, err := l2Args(args)
	if err != nil {
		return err
	}
	destination, err := net.ParseMAC(args[2])
	if err != nil {
		return err
	}
	source := iface.HardwareAddr
	if len(args) > 4 {
		if source, err = net.ParseMAC(args[4]); err != nil {
			return err
		}
	}
	fd, err := rawSocket(iface, etherType)
	if err != nil {
		return err
	}
	frame := append(append([]byte{}, destination...), source...)
	frame = binary.BigEndian.AppendUint16(frame, etherType)
	frame = append(frame, args[3]...)
	for len(frame) < 60 { // shortest frame without its check sequence (IEEE 802.3)
		frame = append(frame, 0)
	}
	_, err = unix.Write(fd, frame)
	return err
}

// l2Recv: IFACE ETHERTYPE SECONDS. It prints "listening", then source and text of the first frame that
// comes in, or "nothing".
func l2Recv(args []string) error {
	iface, etherType, err := l2Args(args)
	if err != nil {
		return err
	}
	seconds, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	fd, err := rawSocket(iface, etherType)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	frame := make([]byte, 65536)
	for end := time.Now().Add(time.Duration(seconds) * time.Second); ; {
		left := time.Until(end)
		if left <= 0 {
			fmt.Println("nothing")
			return nil
		}
		timeout := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return err
		}
		n, from, err := unix.Recvfrom(fd, frame, 0)
		if err != nil || n < 14 {
			continue
		}
		if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		fmt.Println(net.HardwareAddr(frame[6:12]), strings.TrimRight(string(frame[14:n]), "\x00"))
		return nil
	}
}

// windowSize prints the terminal's columns and rows.
func windowSize([]string) error {
	columns, rows, err := term.GetSize(int(os.Stdin.Fd()))
	if err != nil {
		return err
	}
	fmt.Println(columns, rows)
	return nil
}
