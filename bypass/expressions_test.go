package bypass

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// packet is the beginning of the headers of a packet between two endpoints.
func packet(f family, from, to netip.AddrPort) (network, transport []byte) {
	network = make([]byte, 40)
	copy(network[f.src:], from.Addr().AsSlice())
	copy(network[f.dst:], to.Addr().AsSlice())
	transport = binary.BigEndian.AppendUint16(transport, from.Port())
	return network, append(binary.BigEndian.AppendUint16(transport, to.Port()), make([]byte, 16)...)
}

// load carries out loads of a packet's parts as the kernel does: each fills whole registers of 32 bits.
func load(t *testing.T, parts []expr.Any, network, transport []byte) []byte {
	t.Helper()
	var registers [64]byte
	end := 0
	for _, part := range parts {
		p, ok := part.(*expr.Payload)
		if !ok {
			t.Fatalf("%T is no load", part)
		}
		header := network
		if p.Base == expr.PayloadBaseTransportHeader {
			header = transport
		}
		at := int(p.DestRegister-register) * 4
		if at != end {
			t.Errorf("register %d is not the next one", p.DestRegister)
		}
		copy(registers[at:], header[p.Offset:p.Offset+p.Len])
		end = at + int(p.Len+3)&^3
	}
	return registers[:end]
}

// TestKeysOfBothDirectionsAreTheSame: a packet of the container's, one of the proxy's and an element that seedSYNSent
// puts have one key for a connection.
func TestKeysOfBothDirectionsAreTheSame(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, f := range families {
		endpoint := func() netip.AddrPort {
			b := make([]byte, f.size)
			for i := range b {
				b[i] = byte(random.Uint32())
			}
			addr, _ := netip.AddrFromSlice(b)
			return netip.AddrPortFrom(addr, uint16(random.Uint32()))
		}
		for range 100 {
			inside, outside := endpoint(), endpoint()
			network, transport := packet(f, inside, outside)
			there := load(t, f.key(false), network, transport)
			network, transport = packet(f, outside, inside)
			back := load(t, f.key(true), network, transport)
			seeded := setKey(inside.Addr(), inside.Port(), outside.Addr(), outside.Port())
			if !bytes.Equal(there, back) || !bytes.Equal(there, seeded) {
				t.Fatalf("%s to %s:\n%x from the container\n%x from the proxy\n%x seeded", inside, outside, there, back, seeded)
			}
		}
	}
}

// flagsMatch evaluates what flagsAre and flagsAny make, for a segment with flags.
func flagsMatch(t *testing.T, parts []expr.Any, flags byte) bool {
	t.Helper()
	load, mask, cmp := parts[0].(*expr.Payload), parts[1].(*expr.Bitwise), parts[2].(*expr.Cmp)
	if load.Offset != 13 || load.Len != 1 || load.Base != expr.PayloadBaseTransportHeader {
		t.Fatalf("%+v is not the byte with the flags", load)
	}
	equal := flags&mask.Mask[0]^mask.Xor[0] == cmp.Data[0]
	return equal == (cmp.Op == expr.CmpOpEq)
}

func TestFlagsMatchTheSegmentsTheyName(t *testing.T) {
	for flags := range 64 {
		f := byte(flags)
		fin, syn, rst, ack := f&flagFIN != 0, f&flagSYN != 0, f&flagRST != 0, f&flagACK != 0
		for name, c := range map[string]struct {
			parts []expr.Any
			want  bool
		}{
			"SYN alone":   {flagsAre(flagSYN|flagACK, flagSYN), syn && !ack},
			"SYN and ACK": {flagsAre(flagSYN|flagACK, flagSYN|flagACK), syn && ack},
			"FIN, no RST": {flagsAre(flagFIN|flagRST, flagFIN), fin && !rst},
			"FIN or RST":  {flagsAny(flagFIN | flagRST), fin || rst},
			"no FIN":      {flagsAre(flagFIN, 0), !fin},
		} {
			if got := flagsMatch(t, c.parts, f); got != c.want {
				t.Errorf("%s: flags %#x: %v", name, f, got)
			}
		}
	}
}

func TestSourceTranslationsOfNetworksBehindDoNotCount(t *testing.T) {
	network := func(offset uint32) expr.Any {
		return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}
	}
	for _, c := range []struct {
		name  string
		exprs []expr.Any
		want  bool
	}{
		{"nothing", nil, false},
		{"an accept", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}, false},
		{"masquerading", []expr.Any{&expr.Masq{}}, true},
		{"translation", []expr.Any{&expr.NAT{}}, true},
		{"of an IPv4 source", []expr.Any{network(12), &expr.Masq{}}, false},
		{"of an IPv6 source", []expr.Any{network(8), &expr.Masq{}}, false},
		{"to an IPv4 destination", []expr.Any{network(16), &expr.Masq{}}, true},
		{"to an IPv6 destination", []expr.Any{network(24), &expr.Masq{}}, true},
		{"to a port", []expr.Any{&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 12}, &expr.Masq{}}, true},
		{"iptables' masquerading", []expr.Any{&expr.Target{Name: "MASQUERADE"}}, true},
		{"iptables' SNAT", []expr.Any{&expr.Target{Name: "SNAT"}}, true},
		{"iptables' NETMAP", []expr.Any{&expr.Target{Name: "NETMAP"}}, true},
		{"iptables' LOG", []expr.Any{&expr.Target{Name: "LOG"}}, false},
	} {
		if got := masquerades(&nftables.Rule{Exprs: c.exprs}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestChainsForForwardedPacketsAreThoseOfIP(t *testing.T) {
	for _, family := range []nftables.TableFamily{
		nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet,
		nftables.TableFamilyARP, nftables.TableFamilyBridge, nftables.TableFamilyNetdev,
	} {
		ip := family == nftables.TableFamilyIPv4 || family == nftables.TableFamilyIPv6 || family ==
			nftables.TableFamilyINet
		for _, hook := range []*nftables.ChainHook{
			nftables.ChainHookPrerouting, nftables.ChainHookInput, nftables.ChainHookForward, nftables.ChainHookOutput,
			nftables.ChainHookPostrouting,
		} {
			chain := &nftables.Chain{Table: &nftables.Table{Family: family}, Hooknum: hook}
			if got, want := forwards(chain), ip && *hook == *nftables.ChainHookForward; got != want {
				t.Errorf("family %d, hook %d: %v", family, *hook, got)
			}
		}
	}
}
