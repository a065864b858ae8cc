// Package packet has the headers of IP packets: where they are, and how they are built.
//
// [Parse] walks the headers of a packet and says where each is ([Headers]); [ParseIPv4] and [ParseIPv6] stop before the
// transport header. [Datagram.ParseUDP] takes over a whole datagram, as it goes from a network's gateway to the
// forwarder. [PutIP] and [PutUDP] build headers, [QuoteIP] and [QuoteUDP] what an ICMP error repeats of a packet that
// the kernel sent, of which only the ends are known. A [Problem] is why a packet does not get where it should, and
// [ICMPError] the message that tells its sender.
//
// The package opens no sockets and keeps no state. It trusts nothing that it parses: what is cut short or contradicts
// itself is told as such, and never read beyond its end. Its parsers and builders are held against netstack's by
// fuzzing. Nothing on the path of a frame allocates.
package packet
