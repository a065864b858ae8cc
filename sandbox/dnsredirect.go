package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// dnsTable is the table with the rules that lead to the DNS stub, which listens at 127.0.0.11 port PORT instead of 53:
//
//	table ip usernet-dns {
//		flags owner, persist
//		chain in {
//			type filter hook input priority 300; policy accept;
//			ip daddr 127.0.0.11 udp dport 53 udp dport set PORT
//			ip daddr 127.0.0.11 tcp dport 53 tcp dport set PORT
//		}
//		chain out {
//			type filter hook output priority -310; policy accept;
//			ip saddr 127.0.0.11 udp sport PORT udp sport set 53
//			ip saddr 127.0.0.11 tcp sport PORT tcp sport set 53
//		}
//	}
//
// The port is written into the packets rather than translated (Docker's way), so that no connection tracking is begun
// in the sandbox, which would cost all of its traffic. Queries are rewritten behind the sandbox's own filters and
// replies before them and before connection tracking: whatever rules a sandbox has see port 53.
//
// The table has an owner, the netlink socket that made it, and so outlives "nft flush ruleset", with which files for
// nft(8) begin, for as long as that socket is open; the daemon has it. It persists the owner's end, and is like any
// other table then until it is made anew. On a kernel before Linux 6.9 it always is.
const dnsTable = "usernet-dns"

// Flags of a table (include/uapi/linux/netfilter/nf_tables.h), of which x/sys lacks the last.
const (
	tableOwner   = 0x2
	tablePersist = 0x4
)

// Where the rules are. Tables of users are between -300 and 300 (include/uapi/linux/netfilter_ipv4.h).
const (
	redirectInput  = 300
	redirectOutput = -310
)

// Where ports are in the headers of UDP and TCP (RFC 768; RFC 9293, 3.1), and checksums.
const (
	offsetSourcePort      = 0
	offsetDestinationPort = 2
	offsetUDPChecksum     = 6
	offsetTCPChecksum     = 16
)

// Where addresses are in the header of IPv4 (RFC 791, 3.1).
const (
	sourceOffset      = 12
	destinationOffset = 16
)

// register is the first of the kernel's 32-bit registers (NFT_REG32_00, include/uapi/linux/netfilter/nf_tables.h).
const register = unix.NFT_REG32_00

// netlinkTimeout bounds the wait for the kernel's answers, which it gives before the call that sends returns.
const netlinkTimeout = 5 * time.Second

// redirectDNS puts the rules in place in the network namespace that this process is in, instead of those that are
// there: packets for at come to port of the same address. It returns the table's owner, which is to be kept open.
func redirectDNS(at netip.AddrPort, port uint16) (owner *os.File, err error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	defer c.Close()
	replace := tableMayExist(c)
	err = sendBatch(c, redirectRules(at, port, tableOwner|tablePersist, replace))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		err = sendBatch(c, redirectRules(at, port, 0, replace))
	}
	if err != nil {
		return nil, err
	}
	return ownerOf(c)
}

// ownerOf returns another descriptor of the same socket.
func ownerOf(c *netlink.Conn) (*os.File, error) {
	fd, err := sockio.Dup(c)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return os.NewFile(uintptr(fd), fileDNSRules), nil
}

// removeRedirect removes the rules from the network namespace that this process is in, if they are there.
func removeRedirect() error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil // then there are none
	}
	defer c.Close()
	for _, flags := range []uint32{tableOwner | tablePersist, 0} {
		// Making it first claims a table whose owner has ended, and has deleting succeed where there is none.
		if err = sendBatch(c, []netlink.Message{newTable(flags), deleteTable()}); err == nil {
			return nil
		}
	}
	return err
}

// tableMayExist says whether there is a table to be replaced; false: there is none. What is deleted, the kernel
// destroys some milliseconds later, and who closes the table's owner before that waits for it (nft_rcv_nl_event in
// net/netfilter/nf_tables_api.c): so nothing is deleted in a new sandbox, which may end soon.
func tableMayExist(c *netlink.Conn) bool {
	if c.SetDeadline(time.Now().Add(netlinkTimeout)) != nil {
		return true
	}
	_, err := c.Execute(getTable())
	return !errors.Is(err, unix.ENOENT)
}

// redirectRules is a batch that makes the table, and where it may exist replaces it.
func redirectRules(at netip.AddrPort, port uint16, flags uint32, replace bool) []netlink.Message {
	var batch []netlink.Message
	if replace {
		batch = append(batch, newTable(flags), deleteTable())
	}
	batch = append(batch, newTable(flags),
		newChain("in", unix.NF_INET_LOCAL_IN, redirectInput), newChain("out", unix.NF_INET_LOCAL_OUT, redirectOutput))
	for _, t := range []struct {
		proto    byte
		checksum uint32
	}{{unix.IPPROTO_UDP, offsetUDPChecksum}, {unix.IPPROTO_TCP, offsetTCPChecksum}} {
		batch = append(
			batch,
			newRule("in",
				setPort(at.Addr(), destinationOffset, t.proto, offsetDestinationPort, at.Port(), port, t.checksum)),
			newRule("out", setPort(at.Addr(), sourceOffset, t.proto, offsetSourcePort, port, at.Port(), t.checksum)),
		)
	}
	return batch
}

// setPort matches packets of a protocol with an address and a port, and writes another port instead.
func setPort(addr netip.Addr, addrAt uint32, proto byte, portAt uint32, from, to uint16, checksum uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: addrAt, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: addr.AsSlice()},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{proto}},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: portAt, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.BigEndian.PutUint16(from)},
		&expr.Immediate{Register: register, Data: binaryutil.BigEndian.PutUint16(to)},
		&expr.Payload{
			OperationType:  expr.PayloadWrite,
			SourceRegister: register,
			Base:           expr.PayloadBaseTransportHeader,
			Offset:         portAt,
			Len:            2,
			CsumType:       expr.CsumTypeInet,
			CsumOffset:     checksum,
		},
	}
}

// nfMessage is a message of the nf_tables subsystem about the IPv4 family.
func nfMessage(kind int, flags netlink.HeaderFlags, attributes func(*netlink.AttributeEncoder)) netlink.Message {
	ae := netlink.NewAttributeEncoder()
	attributes(ae)
	data, err := ae.Encode()
	if err != nil {
		panic(fmt.Sprintf("attributes of our own making: %v", err))
	}
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | netlink.Acknowledge | flags,
		},
		Data: append([]byte{unix.NFPROTO_IPV4, unix.NFNETLINK_V0, 0, 0}, data...), // struct nfgenmsg
	}
}

func newTable(flags uint32) netlink.Message {
	return nfMessage(unix.NFT_MSG_NEWTABLE, netlink.Create, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, dnsTable)
		ae.Bytes(unix.NFTA_TABLE_FLAGS, binaryutil.BigEndian.PutUint32(flags))
	})
}

func getTable() netlink.Message {
	m := nfMessage(unix.NFT_MSG_GETTABLE, 0, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, dnsTable)
	})
	m.Header.Flags &^= netlink.Acknowledge // the answer is one
	return m
}

func deleteTable() netlink.Message {
	return nfMessage(unix.NFT_MSG_DELTABLE, 0, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, dnsTable)
	})
}

func newChain(name string, hook, priority int) netlink.Message {
	return nfMessage(unix.NFT_MSG_NEWCHAIN, netlink.Create, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_CHAIN_TABLE, dnsTable)
		ae.String(unix.NFTA_CHAIN_NAME, name)
		ae.Nested(unix.NFTA_CHAIN_HOOK, func(ae *netlink.AttributeEncoder) error {
			ae.Bytes(unix.NFTA_HOOK_HOOKNUM, binaryutil.BigEndian.PutUint32(uint32(hook)))
			ae.Bytes(unix.NFTA_HOOK_PRIORITY, binaryutil.BigEndian.PutUint32(uint32(int32(priority))))
			return nil
		})
		ae.String(unix.NFTA_CHAIN_TYPE, "filter")
	})
}

func newRule(chain string, parts []expr.Any) netlink.Message {
	return nfMessage(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_RULE_TABLE, dnsTable)
		ae.String(unix.NFTA_RULE_CHAIN, chain)
		ae.Nested(unix.NFTA_RULE_EXPRESSIONS, func(ae *netlink.AttributeEncoder) error {
			for _, e := range parts {
				b, err := expr.Marshal(unix.NFPROTO_IPV4, e)
				if err != nil {
					return err
				}
				ae.Bytes(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
			}
			return nil
		})
	})
}

// sendBatch carries out all messages or none, and returns the first error.
func sendBatch(c *netlink.Conn, messages []netlink.Message) error {
	edge := func(kind int) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
			// Struct nfgenmsg; the last two are big endian.
			Data: []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	all := append([]netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}, messages...)
	all = append(all, edge(unix.NFNL_MSG_BATCH_END))
	if err := c.SetDeadline(time.Now().Add(netlinkTimeout)); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	if _, err := c.SendMessages(all); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	var first error
	for range messages {
		if _, err := c.Receive(); err != nil {
			if first == nil {
				first = fmt.Errorf("nftables: %w", err)
			}
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOBUFS) {
				break // the kernel tells no more
			}
		}
	}
	return first
}
