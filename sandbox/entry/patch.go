package entry

import (
	"bytes"
	"encoding/binary"
	"errors"
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

// Patch makes the stage the entry point of a program that was linked with this package. It changes image.
func Patch(image []byte) error {
	le := binary.LittleEndian // both architectures that have a stage
	at := bytes.Index(image, marker)
	if at < 0 || len(image) < at+stageOffset || bytes.Contains(image[at+1:], marker) {
		return errNoStage
	}
	headers, err := programHeaders(image)
	if err != nil {
		return err
	}
	for _, p := range headers {
		offset, vaddr, length := le.Uint64(p[phdrOffset:]), le.Uint64(p[phdrVaddr:]), le.Uint64(p[phdrFilesz:])
		if le.Uint32(p) != ptLoad || uint64(at) < offset || uint64(at)-offset >= length {
			continue
		}
		here := uint64(at) - offset + vaddr
		le.PutUint64(image[at+distanceOffset:], le.Uint64(image[ehdrEntry:])-here)
		le.PutUint64(image[ehdrEntry:], here+stageOffset)
		return nil
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
