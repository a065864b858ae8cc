package uplink

import (
	"bytes"
	"encoding/binary"
	"testing"

	vswitch "github.com/usernet/usernet/switch"
)

// frames keeps what is written to it, as on a wire.
type frames [][]byte

func (w *frames) WriteFrame(f *vswitch.Frame) error {
	b := bytes.Clone(f.Ethernet())
	for _, p := range f.Payload {
		b = append(b, p...)
	}
	*w = append(*w, b)
	return nil
}

// frameOf makes a frame of bytes on a wire.
func frameOf(b []byte) *vswitch.Frame {
	f := new(vswitch.Frame)
	copy(f.Ethernet(), b)
	f.Fill(copy(f.Buffer(), b[vswitch.EthernetHeaderLen:]))
	return f
}

// TestTagsComeOffAsTheyWentOn writes frames with a tag, and takes it off again.
func TestTagsComeOffAsTheyWentOn(t *testing.T) {
	plain := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x06"), make([]byte, 28)...)
	for _, vlan := range []uint16{1, 20, MaxVLAN} {
		var wire frames
		if err := writeTagged(&wire, vlan, frameOf(plain)); err != nil || len(wire) != 1 {
			t.Fatalf("VLAN %d: %v, %d frames", vlan, err, len(wire))
		}
		tag := wire[0][macsLen:][:tagLen+2]
		if binary.BigEndian.Uint16(tag) != 0x8100 || binary.BigEndian.Uint16(tag[2:]) != vlan ||
			binary.BigEndian.Uint16(tag[4:]) != 0x0806 {
			t.Errorf("VLAN %d: the tag is % x", vlan, tag)
		}
		f := frameOf(wire[0])
		got, ok := untag(f)
		if !ok || got != vlan {
			t.Errorf("VLAN %d: untagged %d, %v", vlan, got, ok)
		}
		var back frames
		_ = back.WriteFrame(f)
		if !bytes.Equal(back[0], plain) {
			t.Errorf("VLAN %d: % x became % x", vlan, plain, back[0])
		}
		f.Release()
	}
}

// TestUntagging: what tags there are, and what is left for the receiver to do.
func TestUntagging(t *testing.T) {
	macs := make([]byte, macsLen)
	for _, test := range []struct {
		name string
		rest []byte
		vlan uint16
		ok   bool
	}{
		{"none", []byte{8, 0, 1, 2, 3, 4}, 0, true},
		{"a priority alone", []byte{0x81, 0, 0xa0, 0, 8, 0, 1}, 0, true},
		{"with a priority", []byte{0x81, 0, 0xa0, 20, 8, 0, 1}, 20, true},
		{"cut short", []byte{0x81, 0, 0, 20, 8}, 0, false},
		{"nothing behind the type", []byte{0x81, 0}, 0, false},
	} {
		f := frameOf(append(bytes.Clone(macs), test.rest...))
		if vlan, ok := untag(f); vlan != test.vlan || ok != test.ok {
			t.Errorf("%s: %d, %v", test.name, vlan, ok)
		}
		f.Release()
	}
	f := frameOf(append(bytes.Clone(macs), append([]byte{0x81, 0, 0, 20, 8, 0}, make([]byte, 40)...)...))
	defer f.Release()
	f.PutVirtio(vswitch.Virtio{NeedsChecksum: true, ChecksumStart: 38, ChecksumOffset: 16, HeaderLen: 58})
	if _, ok := untag(f); !ok || f.Virtio().ChecksumStart != 34 || f.Virtio().HeaderLen != 54 {
		t.Errorf("after untagging: %+v", f.Virtio())
	}
}

// FuzzUntag: no frame of a physical network makes untagging panic, or has it grow.
func FuzzUntag(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x81\x00\x00\x14\x08\x00abcdef"), uint16(38))
	f.Fuzz(func(t *testing.T, b []byte, start uint16) {
		if len(b) < vswitch.EthernetHeaderLen || len(b) > vswitch.MaxPayload {
			return
		}
		fr := frameOf(b)
		defer fr.Release()
		binary.LittleEndian.PutUint16(fr.Header[virtioChecksumAt:], start)
		if vlan, ok := untag(fr); vlan > vlanMask || ok && fr.Len() > len(b) {
			t.Errorf("VLAN %d, %d bytes of %d", vlan, fr.Len(), len(b))
		}
	})
}

func TestParentsAreTakenApart(t *testing.T) {
	for _, test := range []struct {
		parent, device string
		vlan           uint16
		ok             bool
	}{
		{"nosuch0", "nosuch0", 0, true},
		{"nosuch0.20", "nosuch0", 20, true},
		{"nosuch0.4094", "nosuch0", 4094, true},
		{"nosuch0.4095", "", 0, false},
		{"nosuch0.0", "", 0, false},
		{"nosuch0.x", "", 0, false},
		{"aninterfacewithalongname", "", 0, false},
	} {
		device, vlan, err := Parse(test.parent)
		if device != test.device || vlan != test.vlan || (err == nil) != test.ok {
			t.Errorf("%s: %s, %d, %v", test.parent, device, vlan, err)
		}
	}
}

// TestWhatTheAdministratorHasToDo is the advice for a device that is not there, and for one of another kind.
func TestWhatTheAdministratorHasToDo(t *testing.T) {
	a := Advise("nosuch0", "alice")
	if a.Usable || len(a.Ways) != 3 || a.Ways[1].Commands[0] != "ip tuntap add dev nosuch0 mode tap user alice" {
		t.Errorf("a device that is not there: %+v", a)
	}
	if a = Advise("lo", "alice"); a.Usable || len(a.Ways) != 1 || len(a.Notes) == 0 {
		t.Errorf("a device of another kind: %+v", a)
	}
}
