package pasta

import (
	"fmt"
	"os"
)

// ephemeral is the range of ports that the kernel gives to sockets which ask for none (ip(7), ip_local_port_range).
func ephemeral() (low, high uint16) {
	low, high = 32768, 60999 // the kernel's default
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return low, high
	}
	var l, h uint16
	if _, err := fmt.Sscan(string(b), &l, &h); err != nil || l == 0 || h < l {
		return low, high
	}
	return l, h
}
