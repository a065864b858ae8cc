package gossip

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/usernet/usernet/overlay"
)

// Two hosts that compare what they have exchange digests (memberlist's push and pull): a fingerprint for each bucket of
// rows. The one with the lower name then sends a summary of the buckets that differ: identity and fingerprint of each
// row in them. The other answers with the rows that the first lacks or has otherwise, and with the identities of those
// that it wants itself. Rows that differ so go both ways, and each side takes the later one.

const (
	// maxChunk bounds a message over TCP in bytes; memberlist takes 20 MiB at most.
	maxChunk = 1 << 20
	// maxJobs is how many comparisons wait. What does not fit is compared the next time.
	maxJobs = 16
	// A host compares each second for so many seconds after it has had many rows at once: 2^rounds hosts have them
	// then.
	catchUpEvery = time.Second
	catchUpFor   = 12
	// compareEvery is how long a host goes without a comparison at most: so long a row may take that no broadcast
	// brings. Of 1,000 hosts, one misses up to every eighth (docs/overlay.md).
	compareEvery = 15 * time.Second
	// rowLen is the size of most rows in a message, and maxRow that of the longest.
	rowLen = 640
	maxRow = 64 + overlay.MaxKey + overlay.MaxRecord
	// maxName bounds a member's name in bytes.
	maxName = 64
)

// job is what the worker does for another host.
type job struct {
	to   string // member
	kind byte
	in   *[buckets]bool // msgSummary: the buckets that differ
	have []known        // of a summary that came
	want []uint64       // of a need that came
}

// known is what a summary says of a register.
type known struct{ id, print uint64 }

// byBucket orders as each does.
func byBucket(a, b known) int {
	return cmp.Or(cmp.Compare(bucketOf(a.id), bucketOf(b.id)), cmp.Compare(a.id, b.id))
}

// digest is what push and pull carry: name, the fingerprints, and this host's own record: by it the other one reaches
// this host where it could not connect to it, as behind a NAT, and all else can follow.
func (b *Backend) digest() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]byte, 0, 1+len(b.name)+8*buckets)
	out = binary.AppendUvarint(out, uint64(len(b.name)))
	out = append(out, b.name...)
	for _, d := range b.mu.state.digest {
		out = binary.BigEndian.AppendUint64(out, d)
	}
	if row, is := b.mu.state.get(overlay.HostKey(b.config.Host), b.config.Host); is {
		out = appendRow(out, row)
	}
	return out
}

// catchUp compares with a random host each second while there is more than broadcasts are good for, until Close: each
// row of a broadcast is sent by each host several times, and each row of a comparison to each host once. It also
// compares where nothing else did for a while.
func (b *Backend) catchUp() {
	ticks := time.NewTicker(catchUpEvery)
	defer ticks.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-ticks.C:
		}
		if b.behind.Load() > 0 {
			b.behind.Add(-1)
		} else if !b.compareDue() {
			continue
		}
		if node := b.random(); node != nil {
			b.send(node, append([]byte{msgDigest}, b.digest()...))
		}
	}
}

// compareDue says whether it is time for a comparison, and has the next one wait.
func (b *Backend) compareDue() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.Sub(b.mu.digested) < compareEvery {
		return false
	}
	b.mu.digested = now
	return true
}

// random is another member.
func (b *Backend) random() *memberlist.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, node := range b.mu.members { // a map's order is random
		if node.Name != b.name {
			return node
		}
	}
	return nil
}

// compareDigest begins a comparison where a digest differs. Of push and pull, both sides have both digests, and one of
// them begins; asked says that this side alone has both.
func (b *Backend) compareDigest(buf []byte, asked bool) {
	r := reader{b: buf}
	name := string(r.text(maxName))
	var in [buckets]bool
	differ := false
	b.mu.Lock()
	for i, own := range b.mu.state.digest {
		in[i] = r.hash() != own
		differ = differ || in[i]
	}
	b.mu.compared, b.mu.digested = true, time.Now()
	b.mu.Unlock()
	b.wakeWatch()
	if r.bad {
		b.malformed()
		return
	}
	b.rowsCame(&r)
	if differ && (asked || b.name < name) {
		b.enqueue(job{to: name, kind: msgSummary, in: &in})
	}
}

func (b *Backend) enqueue(j job) {
	select {
	case b.jobs <- j:
	default:
	}
}

// work does jobs until the backend is closed.
func (b *Backend) work() {
	for {
		select {
		case <-b.ctx.Done():
			return
		case j := <-b.jobs:
			node := b.member(j.to)
			if node == nil {
				continue
			}
			switch j.kind {
			case msgSummary:
				b.sendSummary(node, j.in)
			case msgRows:
				b.answerSummary(node, j)
			case msgNeed:
				b.sendRows(node, j.want)
			}
		}
	}
}

// send sends a message over TCP. What fails is compared again with the next push and pull.
func (b *Backend) send(to *memberlist.Node, message []byte) bool {
	if err := b.list.SendReliable(to, message); err != nil {
		b.config.Log.Debug("cluster: a message was not sent", "host", to.Name, "error", err)
		return false
	}
	return true
}

// header begins a message of a kind.
func (b *Backend) header(kind byte) []byte {
	out := append(make([]byte, 0, maxChunk/16), kind)
	out = binary.AppendUvarint(out, uint64(len(b.name)))
	return append(out, b.name...)
}

func (b *Backend) sendSummary(to *memberlist.Node, in *[buckets]bool) {
	out := b.header(msgSummary)
	for i := 0; i < buckets; i += 8 {
		var bits byte
		for k := range 8 {
			if in[i+k] {
				bits |= 1 << k
			}
		}
		out = append(out, bits)
	}
	b.mu.Lock()
	for r := range b.mu.state.each(in) {
		out = binary.BigEndian.AppendUint64(out, r.id)
		out = binary.BigEndian.AppendUint64(out, r.print)
	}
	b.mu.Unlock()
	b.send(to, out)
}

// summaryCame reads one.
func (b *Backend) summaryCame(r *reader) {
	j := job{to: string(r.text(maxName)), kind: msgRows, in: new([buckets]bool)}
	for i, bits := range r.bytes(buckets / 8) {
		for k := range 8 {
			j.in[8*i+k] = bits&(1<<k) != 0
		}
	}
	j.have = make([]known, 0, len(r.b)/16)
	for len(r.b) > 0 && !r.bad {
		j.have = append(j.have, known{r.hash(), r.hash()})
	}
	if r.bad {
		b.malformed()
		return
	}
	b.enqueue(j)
}

// compareSummary finds what the other side lacks or has otherwise, and what this one does.
func (b *Backend) compareSummary(j job) (give, want []uint64) {
	have := j.have
	if !slices.IsSortedFunc(have, byBucket) { // hosts of older versions send it in no order
		slices.SortFunc(have, byBucket)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for r := range b.mu.state.each(j.in) {
		own := known{r.id, r.print}
		for len(have) > 0 && byBucket(have[0], own) < 0 {
			want, have = append(want, have[0].id), have[1:]
		}
		if len(have) > 0 && have[0].id == r.id {
			if have[0].print != r.print {
				give, want = append(give, r.id), append(want, r.id)
			}
			have = have[1:]
			continue
		}
		give = append(give, r.id)
	}
	for _, k := range have {
		want = append(want, k.id)
	}
	return give, want
}

// answerSummary sends what the other side lacks or has otherwise, and asks for what this one does.
func (b *Backend) answerSummary(to *memberlist.Node, j job) {
	give, want := b.compareSummary(j)
	if !b.sendRows(to, give) {
		return
	}
	for part := range slices.Chunk(want, maxChunk/8) {
		out := b.header(msgNeed)
		for _, id := range part {
			out = binary.BigEndian.AppendUint64(out, id)
		}
		if !b.send(to, out) {
			return
		}
	}
}

// needCame reads one.
func (b *Backend) needCame(r *reader) {
	j := job{to: string(r.text(maxName)), kind: msgNeed}
	for len(r.b) > 0 && !r.bad {
		j.want = append(j.want, r.hash())
	}
	if r.bad {
		b.malformed()
		return
	}
	b.enqueue(j)
}

// sendRows sends registers by their identities.
func (b *Backend) sendRows(to *memberlist.Node, ids []uint64) bool {
	for len(ids) > 0 {
		out := append(make([]byte, 0, min(len(ids)*rowLen, maxChunk)+maxRow), msgRows)
		b.mu.Lock()
		for len(ids) > 0 && len(out) < maxChunk {
			if r, is := b.mu.state.byIdentity(ids[0]); is {
				out = appendRow(out, r.row())
			}
			ids = ids[1:]
		}
		b.mu.Unlock()
		if len(out) > 1 && !b.send(to, out) {
			return false
		}
	}
	return true
}
