package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usernet/usernet/observe/capture/filter"
)

// Interface is an endpoint as it is named in a capture.
type Interface struct {
	Container, ID, Network string
	MAC                    net.HardwareAddr
	Addrs                  []netip.Addr
}

// Name is the interface's: container@network.
func (i Interface) Name() string { return i.Container + "@" + i.Network }

func (i Interface) describe() string {
	text := fmt.Sprintf("container %s on network %s", i.Container, i.Network)
	for _, a := range i.Addrs {
		text += ", " + a.String()
	}
	return text
}

// Bounds of a recorder.
const (
	// LongestFrame is that of a super-frame: an Ethernet header and 64 KiB.
	LongestFrame = 14 + 64<<10
	// DefaultQueue is how many bytes of frames wait for who reads. At 10 Gbit/s that is some 13 ms.
	DefaultQueue = 16 << 20
	// queueFrames bounds them too: short frames cost more than their bytes.
	queueFrames = 32 << 10

	statisticsEvery = time.Second
)

// Config says what is recorded. The zero value records all, whole.
type Config struct {
	Application string         // what writes, with its version
	Expression  string         // the text of Filter
	Filter      *filter.Filter // nil: all frames
	Snaplen     int            // bytes that are kept of a frame; 0: all
	Count       uint64         // after how many frames Run ends; 0: it does not
	Queue       int64          // in bytes; 0: DefaultQueue
}

// Recorder is one capture. Make it with New.
type Recorder struct {
	cfg   Config
	began time.Time
	queue chan frame
	held  atomic.Int64 // bytes in queue

	mu        sync.Mutex // guards endpoints
	endpoints []*Endpoint
}

// frame is a copy of one that waits to be written.
type frame struct {
	endpoint *Endpoint
	at       time.Time
	out      bool
	length   int    // as it passed
	data     []byte // what is kept
}

// Endpoint is an interface of a capture.
type Endpoint struct {
	r     *Recorder
	info  Interface
	index uint32

	received, accepted, lost atomic.Uint64

	written Counts // only Run uses it
}

// Counts are an endpoint's frames: those that passed, those of them that the filter wanted, and those of these that are
// not in the capture since its reader was too slow.
type Counts struct{ Received, Accepted, Lost uint64 }

// New returns a recorder without endpoints.
func New(cfg Config) *Recorder {
	if cfg.Snaplen <= 0 || cfg.Snaplen > LongestFrame {
		cfg.Snaplen = LongestFrame
	}
	if cfg.Queue <= 0 {
		cfg.Queue = DefaultQueue
	}
	return &Recorder{cfg: cfg, began: time.Now(), queue: make(chan frame, queueFrames)}
}

// Endpoint adds an interface.
func (r *Recorder) Endpoint(i Interface) *Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &Endpoint{r: r, info: i, index: uint32(len(r.endpoints))}
	r.endpoints = append(r.endpoints, e)
	return e
}

// Counts are the sums over all endpoints.
func (r *Recorder) Counts() (c Counts, endpoints int) {
	list := r.from(0)
	for _, e := range list {
		one := e.counts()
		c.Received += one.Received
		c.Accepted += one.Accepted
		c.Lost += one.Lost
	}
	return c, len(list)
}

// from are the endpoints from an index on.
func (r *Recorder) from(index int) []*Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.endpoints[index:len(r.endpoints):len(r.endpoints)]
}

func (e *Endpoint) counts() Counts {
	return Counts{e.received.Load(), e.accepted.Load(), e.lost.Load()}
}

var packets = sync.Pool{New: func() any { return new(filter.Packet) }}

// Frame records a frame that passes the endpoint; out: the container has sent it. It never blocks, and keeps nothing of
// what it is given.
func (e *Endpoint) Frame(out bool, ethernet []byte, payload [][]byte) {
	e.received.Add(1)
	if e.r.cfg.Filter != nil {
		p := packets.Get().(*filter.Packet)
		p.Ethernet, p.Payload, p.Out = ethernet, payload, out
		wanted := e.r.cfg.Filter.Match(p)
		*p = filter.Packet{}
		packets.Put(p)
		if !wanted {
			return
		}
	}
	e.accepted.Add(1)
	length := len(ethernet)
	for _, p := range payload {
		length += len(p)
	}
	n := min(length, e.r.cfg.Snaplen)
	if e.r.held.Add(int64(n)) > e.r.cfg.Queue {
		e.r.held.Add(int64(-n))
		e.lost.Add(1)
		return
	}
	data := make([]byte, 0, n)
	data = append(data, ethernet[:min(len(ethernet), n)]...)
	for _, p := range payload {
		data = append(data, p[:min(len(p), n-len(data))]...)
	}
	select {
	case e.r.queue <- frame{endpoint: e, at: time.Now(), out: out, length: length, data: data}:
	default:
		e.r.held.Add(int64(-n))
		e.lost.Add(1)
	}
}

// Run writes the capture to w until ctx ends, and then what is in the queue; or until the count of frames is reached,
// or w fails. flush is called where nothing more waits. It is called once.
func (r *Recorder) Run(ctx context.Context, w io.Writer, flush func() error) error {
	s := &stream{r: r, w: writer{w: w}}
	err := s.w.section(r.cfg.Application, strings.TrimSpace("usernet capture "+r.cfg.Expression))
	if err == nil {
		err = errors.Join(s.describe(), flush())
	}
	tick := time.NewTicker(statisticsEvery)
	defer tick.Stop()
	for err == nil && !s.enough() {
		select {
		case f := <-r.queue:
			err = s.frame(f)
		case <-tick.C:
			if err = s.statistics(false); err == nil {
				err = flush()
			}
		case <-ctx.Done():
			for n := len(r.queue); n > 0 && err == nil && !s.enough(); n-- {
				err = s.frame(<-r.queue)
			}
			if err == nil {
				err = errors.Join(s.statistics(true), flush())
			}
			return err
		}
		if err == nil && len(r.queue) == 0 {
			err = flush()
		}
	}
	if err == nil {
		err = errors.Join(s.statistics(true), flush())
	}
	return err
}

// stream is a capture while it is being written.
type stream struct {
	r         *Recorder
	w         writer
	described int // endpoints whose interface blocks are written
	frames    uint64
}

func (s *stream) enough() bool { return s.r.cfg.Count > 0 && s.frames >= s.r.cfg.Count }

// describe writes the interface blocks of endpoints that have none.
func (s *stream) describe() error {
	for _, e := range s.r.from(s.described) {
		if err := s.w.endpoint(e.info, s.r.cfg.Snaplen, s.r.cfg.Expression); err != nil {
			return err
		}
		s.described++
	}
	return nil
}

func (s *stream) frame(f frame) error {
	s.r.held.Add(int64(-len(f.data)))
	if int(f.endpoint.index) >= s.described {
		if err := s.describe(); err != nil {
			return err
		}
	}
	s.frames++
	return s.w.packet(f.endpoint.index, f)
}

// statistics writes the counts that have changed, or all of them.
func (s *stream) statistics(all bool) error {
	if err := s.describe(); err != nil {
		return err
	}
	for _, e := range s.r.from(0)[:s.described] {
		c := e.counts()
		if !all && c == e.written {
			continue
		}
		e.written = c
		if err := s.w.statistics(e.index, s.r.began, c); err != nil {
			return err
		}
	}
	return nil
}
