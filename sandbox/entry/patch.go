package entry

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
)

// marker stands in front of the stage. It is written inverted here, so that a program has it in one place.
var marker = func() []byte {
	m := []byte{^byte('u'), ^byte('s'), ^byte('e'), ^byte('r'), ^byte('n'), ^byte('e'), ^byte('t'), ^byte(0x01),
		^byte(0xd3), ^byte(0x7a), ^byte(0x1e), ^byte(0x95), ^byte(0xc6), ^byte(0x0b), ^byte(0xf8), ^byte(0x42)}
	for i := range m {
		m[i] = ^m[i]
	}
	return m
}()

// What follows the marker: how far it is from the marker to the linker's entry point, and the stage.
const (
	distanceOffset = 16
	stageOffset    = 24
)

// Offsets in Elf64_Ehdr and Elf64_Phdr (elf(5)), in bytes.
const (
	ehdrEntry, ehdrPhoff, ehdrPhentsize, ehdrPhnum = 24, 32, 54, 56
	phdrOffset, phdrVaddr, phdrFilesz              = 8, 16, 32
	ehdrSize, phdrSize                             = 64, 56
	ptLoad, ptInterp                               = 1, 3
)

// errNoStage says that a file is no program that was linked with this package.
var errNoStage = errors.New("not an ELF program of 64 bits with the stage that enters namespaces")

// File is what Copy writes to: a file in memory, mostly.
type File interface {
	io.Writer
	io.WriterAt
}

// Sizes in bytes of what Copy reads at once, and of the beginning of a program that has all its headers.
const (
	chunkSize = 256 << 10
	headSize  = 4 << 10
)

// Copy writes a program that was linked with this package to a file that is empty, with the stage as its entry point.
// It looks for the stage in what is in the processor's caches anyway: the start of a role waits for it.
func Copy(to File, program io.Reader) error {
	var head []byte
	at, size, kept := int64(-1), int64(0), 0
	buf := make([]byte, len(marker)-1+chunkSize) // what is kept of the last chunk, then a chunk
	for {
		n, err := io.ReadFull(program, buf[kept:kept+chunkSize])
		if n == 0 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			if errors.Is(err, io.EOF) {
				break
			}
			return err
		}
		if _, err := to.Write(buf[kept : kept+n]); err != nil {
			return err
		}
		if head == nil {
			head = bytes.Clone(buf[:min(n, headSize)])
		}
		seen := buf[:kept+n]
		if i := bytes.Index(seen, marker); i >= 0 {
			if at >= 0 || bytes.Contains(seen[i+1:], marker) {
				return errNoStage
			}
			at = size - int64(kept) + int64(i)
		}
		size += int64(n)
		kept = copy(buf, seen[max(0, len(seen)-len(marker)+1):])
	}
	if at < 0 || size < at+stageOffset {
		return errNoStage
	}
	return enterAt(to, head, uint64(at))
}

// enterAt makes the stage behind the marker at an offset the entry point of the program that is in a file.
func enterAt(to io.WriterAt, head []byte, at uint64) error {
	headers, err := programHeaders(head)
	if err != nil {
		return err
	}
	le := binary.LittleEndian // both architectures that have a stage
	for _, p := range headers {
		offset, vaddr, length := le.Uint64(p[phdrOffset:]), le.Uint64(p[phdrVaddr:]), le.Uint64(p[phdrFilesz:])
		if le.Uint32(p) != ptLoad || at < offset || at-offset >= length {
			continue
		}
		here := at - offset + vaddr
		distance := le.AppendUint64(nil, le.Uint64(head[ehdrEntry:])-here)
		if _, err := to.WriteAt(distance, int64(at+distanceOffset)); err != nil {
			return err
		}
		_, err := to.WriteAt(le.AppendUint64(nil, here+stageOffset), ehdrEntry)
		return err
	}
	return errNoStage
}

// Dynamic says whether a program needs a dynamic linker to start, and libraries, by its first few kilobytes.
func Dynamic(image []byte) bool {
	headers, err := programHeaders(image)
	return err == nil &&
		slices.ContainsFunc(headers, func(p []byte) bool { return binary.LittleEndian.Uint32(p) == ptInterp })
}

// programHeaders are those of a program of 64 bits, each a part of image.
func programHeaders(image []byte) (headers [][]byte, err error) {
	if len(image) < ehdrSize || !bytes.HasPrefix(image, []byte("\x7fELF\x02\x01")) {
		return nil, errNoStage
	}
	le := binary.LittleEndian
	at, size := le.Uint64(image[ehdrPhoff:]), uint64(le.Uint16(image[ehdrPhentsize:]))
	for range le.Uint16(image[ehdrPhnum:]) {
		if size < phdrSize || at > uint64(len(image)) || uint64(len(image))-at < size {
			return nil, errNoStage
		}
		headers = append(headers, image[at:at+size])
		at += size
	}
	return headers, nil
}
