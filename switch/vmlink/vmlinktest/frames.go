// Package vmlinktest speaks the guest's side of package vmlink's streams, for tests and measurements that have no
// virtual machine.
package vmlinktest

import (
	"encoding/binary"
	"fmt"
	"io"
)

// lengthLen is how many bytes of length, big-endian, are before each frame (qemu's -netdev stream).
const lengthLen = 4

// Append appends a frame to b as it is in a stream.
func Append(b, frame []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(frame))), frame...)
}

// WriteFrame sends a frame, by one Write.
func WriteFrame(w io.Writer, frame []byte) error {
	_, err := w.Write(Append(nil, frame))
	return err
}

// ReadFrame reads the next frame into buf, and returns it. It fails at the end of the stream, and with a frame that is
// longer than buf.
func ReadFrame(r io.Reader, buf []byte) ([]byte, error) {
	var head [lengthLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(len(buf)) {
		return nil, fmt.Errorf("a frame of %d bytes came; %d are expected at most", n, len(buf))
	}
	_, err := io.ReadFull(r, buf[:n])
	return buf[:n], err
}
