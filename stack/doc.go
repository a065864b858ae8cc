// Package stack is a network's gateway: a gVisor netstack behind one port of the network's switch.
//
// # The central idea
//
// The netstack's interface takes packets for every destination and may send from every source. It does what is hard
// (ARP, neighbour discovery, reassembly, TCP) and knows no host: what containers send elsewhere goes to a Handler, and
// what the Handler has for them is sent in the name of whoever it came from.
//
// The daemon makes a Gateway for each network; package forwarder is the Handler.
package stack
