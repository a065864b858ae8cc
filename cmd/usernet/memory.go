package main

import (
	"fmt"
	"math"
	"os"
	"runtime/debug"

	"github.com/docker/go-units"

	"github.com/usernet/usernet/internal/machine"
)

// byteSize is a flag's number of bytes, as Docker's --memory has it: 512k, 128MiB, 1g.
type byteSize struct{ n *int64 }

func (b byteSize) String() string {
	switch {
	case b.n == nil || *b.n == 0:
		return "0"
	case *b.n == aQuarter:
		return "a quarter of the memory"
	}
	return units.BytesSize(float64(*b.n))
}

func (b byteSize) Set(s string) error {
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is no number of bytes; give one like 128MiB, or 0 for no limit", s)
	}
	*b.n = n
	return nil
}

func (byteSize) Type() string { return "bytes" }

// aQuarter stands for a quarter of the memory that this process may use, which is looked up once it is needed.
const aQuarter = -1

// Shares of the memory that this process may use. Buffers of containers' connections get a quarter at most, as it has
// more to do and the kernel's socket buffers count in a control group too.
const (
	bufferShare  = 4    // a quarter
	limitedShare = 0.75 // of a control group's limit, Go's runtime may use
	machineShare = 0.5  // of a machine's memory
	mebibyte     = 1 << 20
)

// totalMemory is what the buffers of all containers' connections may take; 0, no limit, where the machine's memory is
// not known.
func totalMemory(flag int64) int64 {
	if flag != aQuarter {
		return flag
	}
	n, _ := machine.Memory()
	return n / bufferShare / mebibyte * mebibyte
}

// limitGoMemory has Go's runtime collect garbage more often before the process has all memory that it may use. The
// variable GOMEMLIMIT overrides it.
func limitGoMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if n, limited := machine.Memory(); n > 0 {
		debug.SetMemoryLimit(goMemoryLimit(n, limited))
	}
}

func goMemoryLimit(n int64, limited bool) int64 {
	share := machineShare
	if limited {
		share = limitedShare
	}
	return int64(math.Round(float64(n) * share))
}
