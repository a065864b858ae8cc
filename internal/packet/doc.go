// Package packet has the forms in which packets go between the packages that handle them, a walk over headers, and the headers and
// messages that are built by hand.
//
// A [Datagram] is what a network's gateway has taken out of a frame for the forwarder: addresses, what else of the headers has to
// be kept, and the payload. A [Problem] is why it does not get where it should, and [ICMPError] the message that tells its sender.
// [QuoteUDP] and [QuoteIP] are what an ICMP error repeats of a packet that the kernel sent, of which only the ends are known.
// [UpperIPv6] finds the upper layer behind extension headers.
//
// The package opens no sockets and keeps no state. It trusts nothing that it parses: what is cut short or contradicts itself is told
// as such, and never read beyond its end.
package packet
