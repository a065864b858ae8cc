package capture

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Output says where Copy puts a capture.
type Output struct {
	Path string    // of a file; "-": Stdout
	Std  io.Writer // for "-"
	// RotateSize and RotateTime are after what size in bytes, and after what time, another file is begun, whose name
	// has a number behind Path's base; 0: none is.
	RotateSize int64
	RotateTime time.Duration
	Files      int   // how many files are kept of those; 0: all
	MaxSize    int64 // in bytes, of all that is written; 0: no bound
	// Begun is called once the file is open and has taken the first block. It may be nil.
	Begun func()
	// Full is called once MaxSize is reached, and has to end the stream. Copy reads on to the statistics at its end,
	// and writes nothing more.
	Full func()
}

// Summary is what Copy has written.
type Summary struct {
	Files     []string // that are there
	Frames    uint64
	Bytes     int64
	Endpoints int
	Counts    Counts // of all endpoints, as the stream says them
}

// longestBlock bounds a block of a stream, in bytes: a super-frame, or options of 32 KiB each.
const longestBlock = 1 << 20

// Copy reads a stream of a Recorder to its end and writes it to files, each of which is a capture of its own.
func Copy(from io.Reader, o Output) (Summary, error) {
	c := &copying{o: o, counts: map[uint32]Counts{}}
	err := c.run(bufio.NewReaderSize(from, 256<<10))
	c.sum.Endpoints = len(c.counts)
	for _, n := range c.counts {
		c.sum.Counts.Received += n.Received
		c.sum.Counts.Accepted += n.Accepted
		c.sum.Counts.Lost += n.Lost
	}
	return c.sum, errors.Join(err, c.close())
}

type copying struct {
	o       Output
	sum     Summary
	head    []byte // blocks that each file begins with: section, interfaces, names
	counts  map[uint32]Counts
	file    *os.File // nil: standard output, or none yet
	w       *bufio.Writer
	size    int64 // of the file
	began   time.Time
	numbers int  // files begun
	begun   bool // the first block is in the file
	full    bool // MaxSize is reached: only statistics are read
}

func (c *copying) run(r *bufio.Reader) error {
	for {
		block, err := readBlock(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.block(block); err != nil {
			return err
		}
		if c.w != nil && (!c.begun || r.Buffered() == 0) {
			if err := c.w.Flush(); err != nil {
				return err
			}
			c.begins()
		}
	}
}

// begins says, once, that what is captured arrives.
func (c *copying) begins() {
	if !c.begun && c.o.Begun != nil {
		c.o.Begun()
	}
	c.begun = true
}

// readBlock reads a block, whole. io.EOF: there is none more.
func readBlock(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(8)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n := order.Uint32(head[4:])
	if n < 12 || n%4 != 0 || n > longestBlock {
		return nil, fmt.Errorf("the stream is no capture: a block of %d bytes", n)
	}
	block := make([]byte, n)
	if _, err := io.ReadFull(r, block); err != nil {
		return nil, err
	}
	return block, nil
}

// block writes one, to another file where it is time for that.
func (c *copying) block(b []byte) error {
	switch kind := order.Uint32(b); kind {
	case blockSection, blockInterface, blockNames:
		if kind == blockInterface {
			c.counts[uint32(len(c.counts))] = Counts{}
		}
		c.head = append(c.head, b...)
	case blockStatistics:
		c.count(b)
	}
	if c.fills(b); c.full {
		return nil
	}
	if order.Uint32(b) == blockPacket {
		if err := c.rotate(len(b)); err != nil {
			return err
		}
		c.sum.Frames++
	}
	if c.w == nil {
		return c.open(b)
	}
	return c.write(b)
}

func (c *copying) write(b []byte) error {
	_, err := c.w.Write(b)
	c.size += int64(len(b))
	c.sum.Bytes += int64(len(b))
	return err
}

// rotates says whether there are several files.
func (c *copying) rotates() bool { return c.o.RotateSize > 0 || c.o.RotateTime > 0 }

// fills notes that a block does not fit into MaxSize any more.
func (c *copying) fills(b []byte) {
	n := int64(len(b))
	if order.Uint32(b) == blockPacket && c.due(len(b)) {
		n += int64(len(c.head))
	}
	if c.full || c.o.MaxSize == 0 || c.sum.Bytes+n <= c.o.MaxSize {
		return
	}
	c.full = true
	if c.o.Full != nil {
		c.o.Full()
	}
}

// due says whether another file is begun before a packet's block of n bytes: the one that is written is old or large.
func (c *copying) due(n int) bool {
	full := c.o.RotateSize > 0 && c.size+int64(n) > c.o.RotateSize && c.size > int64(len(c.head))
	old := c.o.RotateTime > 0 && time.Since(c.began) >= c.o.RotateTime
	return c.o.Path != "-" && (full || old)
}

// rotate begins another file where that is due. n is the length of what comes.
func (c *copying) rotate(n int) error {
	if !c.due(n) {
		return nil
	}
	if err := c.close(); err != nil {
		return err
	}
	return c.open(c.head)
}

// open begins a file with what b has.
func (c *copying) open(b []byte) error {
	if c.o.Path == "-" {
		c.w = bufio.NewWriterSize(c.o.Std, 256<<10)
		return c.write(b)
	}
	name := c.o.Path
	c.numbers++
	if c.rotates() {
		ext := filepath.Ext(name)
		name = fmt.Sprintf("%s-%05d%s", strings.TrimSuffix(name, ext), c.numbers, ext)
	}
	flags := os.O_CREATE | os.O_TRUNC | os.O_WRONLY
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		flags = os.O_WRONLY // a named pipe, as of Wireshark
	}
	f, err := os.OpenFile(name, flags, 0o600) // who reads it reads what others said
	if err != nil {
		return err
	}
	c.file, c.w, c.size, c.began = f, bufio.NewWriterSize(f, 256<<10), 0, time.Now()
	c.sum.Files = append(c.sum.Files, name)
	if err := c.write(b); err != nil {
		return err
	}
	for c.o.Files > 0 && len(c.sum.Files) > c.o.Files {
		if err := os.Remove(c.sum.Files[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		c.sum.Files = c.sum.Files[1:]
	}
	return nil
}

func (c *copying) close() error {
	if c.w == nil {
		return nil
	}
	err := c.w.Flush()
	if c.file != nil {
		err = errors.Join(err, c.file.Close())
	}
	c.w, c.file = nil, nil
	return err
}

// count reads a statistics block.
func (c *copying) count(b []byte) {
	const options = 8 + 4 + 8 // behind the block's head: the interface, the time
	if len(b) < options+4 {
		return
	}
	index := order.Uint32(b[8:])
	n, known := c.counts[index]
	if !known {
		return
	}
	for rest := b[options : len(b)-4]; len(rest) >= 4; {
		code, length := order.Uint16(rest), int(order.Uint16(rest[2:]))
		padded := 4 + (length+3)&^3
		if code == optEnd || padded > len(rest) {
			break
		}
		if length == 8 {
			switch v := order.Uint64(rest[4:]); code {
			case isbReceived:
				n.Received = v
			case isbAccepted:
				n.Accepted = v
			case isbDropped:
				n.Lost = v
			}
		}
		rest = rest[padded:]
	}
	c.counts[index] = n
}
