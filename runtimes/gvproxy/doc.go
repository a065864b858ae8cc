// Package gvproxy takes the place of gvproxy (gvisor-tap-vsock): the program that gives a virtual machine a network
// and forwards ports to it as it is told by HTTP. The virtual machine is then one of the user's daemon's containers,
// on one of its networks, with names, egress rules and flows.
//
//	usernet gvproxy -listen unix:///run/user/1000/api.sock -listen-qemu unix:///run/user/1000/vm.sock
//
// The one idea: the process carries no frames. It attaches the machine's socket (package runtimes/vm), holds the
// attachment for as long as it lives, and translates requests of gvproxy's API into those of the daemon's: what is
// published is the daemon's to say, so nothing is stored here.
//
// Without -usernet-network, or USERNET_NETWORK, it is on a network called gvproxy, which has gvproxy's addresses:
// 192.168.127.0/24, with the machine at .2 and the gateway at .1.
package gvproxy
