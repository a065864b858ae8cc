package bypass

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/bypass/fwmark"
)

// tableName is the table of the rules in doc.go, which explains them.
const tableName = "usernet"

// The sets: each holds connections as the container sees them, its own address and port first.
const (
	setSYNSent     = "syn_sent"
	setEstablished = "established"
	setFINWait     = "fin_wait"
	setTimeWait    = "time_wait"
)

// timeWait is how long the packets of a connection are brought back once both ends have closed it, or while it is being
// opened. They cross no network. It is also how long ago a container's SYN may be: one that waits for the destination
// is sent again after 16 s at most (RFC 6298), within dialTimeout of the forwarder.
const timeWait = 20 * time.Second

// halfClosed is the same where only the container has closed: its keepalive probes have to come back, however long the
// answer takes. The proxy's end, which sends a FIN or a reset, ends it early.
const halfClosed = 24 * time.Hour

// setSize bounds each set. Connections beyond go through the gateway's TCP. At 20 s each, 262144 are 13,000 a second.
const setSize = 1 << 18

// register is the first of the kernel's 32-bit registers (NFT_REG32_00, include/uapi/linux/netfilter/nf_tables.h).
const register = unix.NFT_REG32_00

// TCP's flags, in the byte at flagsOffset of its header (RFC 9293, 3.1).
const (
	flagsOffset                        = 13
	flagFIN, flagSYN, flagRST, flagACK = 0x01, 0x02, 0x04, 0x10
)

// family is what the rules of one family need to know of it.
type family struct {
	table    nftables.TableFamily
	addr     nftables.SetDatatype
	size     uint32 // of an address, in bytes
	src, dst uint32 // where the header has them
}

var families = []family{
	{nftables.TableFamilyIPv4, nftables.TypeIPAddr, 4, 12, 16},  // RFC 791, 3.1
	{nftables.TableFamilyIPv6, nftables.TypeIP6Addr, 16, 8, 24}, // RFC 8200, 3
}

// loadRuleset adds the rules in the network namespace that this process is in. Rules that exist stay.
func loadRuleset(ipv6 bool) error { return loadTables(ipv6, family.add) }

// loadTables makes a table of each family in the network namespace that this process is in. A table that exists stays.
func loadTables(ipv6 bool, add func(family, *nftables.Conn) error) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, f := range families {
		if f.table == nftables.TableFamilyIPv6 && !ipv6 {
			continue
		}
		if err := add(f, c); err != nil {
			return err
		}
		if err := c.Flush(); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("nftables: %w", err)
		}
	}
	return nil
}

func (f family) add(c *nftables.Conn) error {
	t := c.CreateTable(&nftables.Table{Name: tableName, Family: f.table})
	var err error
	set := func(name string, timeout time.Duration) *nftables.Set {
		s, failed := f.addSet(c, t, name, setSize, timeout)
		err = errors.Join(err, failed)
		return s
	}
	synSent, established := set(setSYNSent, timeWait), set(setEstablished, 0)
	finWait, timeWaits := set(setFINWait, 0), set(setTimeWait, timeWait)
	if err != nil {
		return err
	}
	out := addRouteChain(c, t)
	fromProxy := c.AddChain(&nftables.Chain{Table: t, Name: "from_proxy"})
	// Before connections are tracked, or the container's own, to be opened by way of the gateway then, would be taken
	// for reset.
	unsolicited := c.AddChain(&nftables.Chain{
		Table:    t,
		Name:     "reject_unsolicited",
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityRaw,
	})
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) { addRule(c, chain, parts...) }
	inside, outside := f.key(false), f.key(true) // of packets from the container's socket, and from the proxy's

	rule(unsolicited, markIs(fwmark.Outbound), protocolIs(unix.IPPROTO_TCP),
		flagsAre(flagSYN|flagACK, flagSYN), outside, notIn(synSent),
		[]expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
	rule(out, protocolIsNot(unix.IPPROTO_TCP), verdict(expr.VerdictAccept, ""))
	rule(out, markIs(fwmark.Outbound), verdict(expr.VerdictGoto, fromProxy.Name))
	rule(out, markIs(fwmark.Inbound), verdict(expr.VerdictAccept, ""))
	// A container's SYN begins anew, whatever had these ports before.
	rule(out, flagsAre(flagSYN|flagACK, flagSYN), inside, remove(established), remove(finWait), remove(timeWaits),
		put(synSent), verdict(expr.VerdictAccept, ""))
	// Its answer to the proxy's SYN opens the connection; its last packets close it. Where a set is full, it stays in
	// the one it is in.
	rule(out, flagsAre(flagSYN|flagACK, flagSYN|flagACK), inside, in(timeWaits), put(established))
	rule(out, flagsAre(flagFIN|flagRST, flagFIN), inside, in(established), putFor(timeWaits, halfClosed),
		remove(established))
	rule(out, flagsAny(flagFIN|flagRST), inside, in(finWait), put(timeWaits), remove(finWait))
	rule(out, flagsAny(flagRST), inside, in(established), put(timeWaits), remove(established))
	rule(out, flagsAny(flagRST), inside, in(timeWaits), put(timeWaits))
	rule(out, inside, in(established), setMark(fwmark.Outbound), verdict(expr.VerdictAccept, ""))
	rule(out, inside, in(finWait), setMark(fwmark.Outbound), verdict(expr.VerdictAccept, ""))
	rule(out, inside, in(timeWaits), setMark(fwmark.Outbound))

	rule(fromProxy, flagsAre(flagSYN|flagACK, flagSYN), outside, remove(synSent), put(timeWaits),
		verdict(expr.VerdictAccept, ""))
	// Of a reset it is not known whose it is: the kernel answers with one where a socket is gone, or not for this
	// packet.
	rule(fromProxy, flagsAny(flagRST),
		outside, remove(established), remove(finWait), remove(timeWaits),
		inside, remove(established), remove(finWait), remove(timeWaits),
		verdict(expr.VerdictAccept, ""))
	rule(fromProxy, flagsAny(flagFIN), outside, in(established), put(finWait), remove(established),
		verdict(expr.VerdictAccept, ""))
	rule(fromProxy, outside, in(established), verdict(expr.VerdictAccept, ""))
	rule(fromProxy, outside, in(finWait), verdict(expr.VerdictAccept, ""))
	rule(fromProxy, flagsAre(flagFIN, 0), outside, in(timeWaits), verdict(expr.VerdictAccept, ""))
	rule(fromProxy, outside, put(timeWaits))
	return nil
}

// addSet makes a set of connections, of which packets add elements: for a time, or where timeout is 0 until they remove
// them.
func (f family) addSet(
	c *nftables.Conn, t *nftables.Table, name string, size uint32, timeout time.Duration,
) (*nftables.Set, error) {
	key, err := nftables.ConcatSetType(f.addr, nftables.TypeInetService, f.addr, nftables.TypeInetService)
	if err != nil {
		return nil, err
	}
	s := &nftables.Set{
		Table:         t,
		Name:          name,
		KeyType:       key,
		Concatenation: true,
		Dynamic:       true,
		Size:          size,
		HasTimeout:    timeout > 0,
		Timeout:       timeout,
	}
	return s, c.AddSet(s, nil)
}

// addRouteChain makes the chain that marks what the container sends: one of type route has the kernel look for the way
// again where the mark was changed.
func addRouteChain(c *nftables.Conn, t *nftables.Table) *nftables.Chain {
	return c.AddChain(&nftables.Chain{
		Table:    t,
		Name:     "out",
		Type:     nftables.ChainTypeRoute,
		Hooknum:  nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityMangle,
	})
}

func addRule(c *nftables.Conn, chain *nftables.Chain, parts ...[]expr.Any) {
	c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: slices.Concat(parts...)})
}

// key loads a packet's connection as the container sees it: its own address and port, then the other's.
func (f family) key(reverse bool) []expr.Any {
	inside, outside, insidePort, outsidePort := f.src, f.dst, uint32(0), uint32(2) // RFC 9293, 3.1
	if reverse {
		inside, outside, insidePort, outsidePort = outside, inside, outsidePort, insidePort
	}
	words := f.size / 4
	load := func(reg uint32, base expr.PayloadBase, offset, size uint32) expr.Any {
		return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: size}
	}
	return []expr.Any{
		load(register, expr.PayloadBaseNetworkHeader, inside, f.size),
		load(register+words, expr.PayloadBaseTransportHeader, insidePort, 2),
		load(register+words+1, expr.PayloadBaseNetworkHeader, outside, f.size),
		load(register+2*words+1, expr.PayloadBaseTransportHeader, outsidePort, 2),
	}
}

func in(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register, SetName: s.Name, SetID: s.ID}}
}

func notIn(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register, SetName: s.Name, SetID: s.ID, Invert: true}}
}

func put(s *nftables.Set) []expr.Any { return putFor(s, s.Timeout) }

func putFor(s *nftables.Set, timeout time.Duration) []expr.Any {
	return []expr.Any{&expr.Dynset{
		SrcRegKey: register,
		SetName:   s.Name,
		SetID:     s.ID,
		Operation: unix.NFT_DYNSET_OP_UPDATE,
		Timeout:   timeout,
	}}
}

func remove(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Dynset{SrcRegKey: register, SetName: s.Name, SetID: s.ID, Operation: dynsetDelete}}
}

// dynsetDelete is NFT_DYNSET_OP_DELETE (include/uapi/linux/netfilter/nf_tables.h), which x/sys lacks.
const dynsetDelete = 2

func verdict(v expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: v, Chain: chain}}
}

func protocol(op expr.CmpOp, proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: op, Register: register, Data: []byte{proto}},
	}
}

func protocolIs(proto byte) []expr.Any    { return protocol(expr.CmpOpEq, proto) }
func protocolIsNot(proto byte) []expr.Any { return protocol(expr.CmpOpNeq, proto) }

func markIs(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.NativeEndian.PutUint32(mark)},
	}
}

func setMark(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register, Data: binaryutil.NativeEndian.PutUint32(mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register, SourceRegister: true},
	}
}

func flagsMasked(mask byte, op expr.CmpOp, value byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: op, Register: register, Data: []byte{value}},
	}
}

func flagsAre(mask, value byte) []expr.Any { return flagsMasked(mask, expr.CmpOpEq, value) }
func flagsAny(mask byte) []expr.Any        { return flagsMasked(mask, expr.CmpOpNeq, 0) }
