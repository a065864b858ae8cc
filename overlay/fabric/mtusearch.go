package fabric

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"slices"
	"time"
)

// When the path's MTU is probed (RFC 8899). A round has smaller probes besides that of the path's MTU. It is missed
// where a smaller one is answered and that one is not: so what has all answers be late or lost does not count.
const (
	confirmEvery = tick / 2         // rounds, one with each tick, while large frames go there
	sizeEvery    = 30 * time.Second // else
	raiseEvery   = 30 * time.Second // probes of larger sizes; sooner after the path's MTU fell
	raiseFirst   = 5 * time.Second

	sizeMisses     = 3 // rounds that are missed before the path's MTU falls (RFC 8899, 5.1.3: MAX_PROBES)
	sizeMissesMost = 8 // on a path that loses packets of all sizes
	sizeCopies     = 3 // probes of the path's MTU in a round, once one was missed
	// chance is how likely it may be that all probes of the path's MTU were lost for another reason than their size.
	chance = 0.001

	answerLeast = 200 * time.Millisecond // a round is judged after three round trips, and after that at least
	roundsKept  = 16
	// largeDatagram is from how many bytes on a datagram shows that frames go there that a narrow path may lose.
	largeDatagram = 500
)

// probeSizes are path MTUs that occur: IPv6's least, tunnels, PPPoE, Ethernet, clouds, jumbo frames.
var probeSizes = []int{576, 1280, 1400, 1420, 1460, 1492, 1500, 1800, 4000, 8900, 9000}

// mtuSearch finds how large packets to a peer may be. It has neither clock nor lock, and sends nothing itself.
//
//	confirm: a round each second while large frames go there, else each 30 s; larger sizes now and then
//	   |  ^ the path's MTU is answered
//	   v  | a round is missed
//	doubt: rounds with all smaller sizes, one after another; the third that is missed has the path's MTU fall to the
//	       largest size that was answered in them
type mtuSearch struct {
	rounds [roundsKept]mtuRound // by number
	next   uint64               // number of the next round
	floor  uint64               // rounds before this one count no more
	dueAt  time.Time            // when the next round is due, or the last one judged
	quiet  time.Time            // when one is due without large frames
	raise  time.Time            // when larger sizes are tried
	raises int                  // tries since the path's MTU fell
}

// mtuRound is probes that were sent together.
type mtuRound struct {
	token    uint64
	at       time.Time
	mtu      int   // the path's, then
	sizes    []int // that were sent; 0: a probe that is as small as it can be
	answered []int
}

// newToken draws the token of a round of probes.
func newToken() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand does not fail (Go 1.24)
	return binary.BigEndian.Uint64(b[:])
}

// forget begins again: the peer has another address.
func (s *mtuSearch) forget() {
	s.floor, s.raises = s.next, 0
	s.dueAt, s.quiet, s.raise = time.Time{}, time.Time{}, time.Time{}
}

// hasMissed says whether a smaller probe of the round is answered, and that of the path's MTU is not.
func (r *mtuRound) hasMissed() bool { return len(r.answered) > 0 && slices.Max(r.answered) < r.mtu }

// counting are the rounds of the path's MTU that are to be judged, the latest first, up to one that was answered.
func (s *mtuSearch) counting(now time.Time, mtu int, within time.Duration) (list []*mtuRound) {
	for n := s.next; n > s.floor && s.next-n < roundsKept; n-- {
		r := &s.rounds[(n-1)%roundsKept]
		switch {
		case r.mtu == 0: // dropped
		case r.mtu != mtu || len(r.answered) > 0 && !r.hasMissed():
			return list
		case now.Sub(r.at) >= within:
			list = append(list, r)
		}
	}
	return list
}

// judge says what the path's MTU is now: mtu, or a smaller one. doubt says that a round was missed.
func (s *mtuSearch) judge(now time.Time, mtu, least int, within time.Duration) (_ int, doubt bool) {
	rounds := s.counting(now, mtu, within)
	missed, best := 0, 0
	for _, r := range rounds {
		if r.hasMissed() {
			missed++
			best = max(best, slices.Max(r.answered))
		}
	}
	if missed == 0 || mtu <= least {
		return mtu, false
	}
	if missed < missesNeeded(rounds, best) {
		return mtu, true
	}
	s.floor, s.raises, s.raise = s.next, 0, now.Add(raiseFirst)
	return min(max(best, least), mtu), false
}

// missesNeeded is how many rounds have to be missed: more where probes are lost that are no larger than others which
// are answered. best is the largest size that was answered.
func missesNeeded(rounds []*mtuRound, best int) int {
	sent, lost := 0, 0
	for _, r := range rounds {
		if len(r.answered) == 0 {
			continue // nothing got through, which says nothing of sizes
		}
		for _, size := range r.sizes {
			if size > best {
				continue
			}
			sent++
			if !slices.Contains(r.answered, size) {
				lost++
			}
		}
	}
	rate := (float64(lost) + 0.5) / float64(sent+1) // never 0 or 1
	probes := math.Log(chance) / math.Log(rate)     // that have to be lost
	n := 1 + int(math.Ceil((probes-1)/sizeCopies))  // the first round had one
	return min(max(n, sizeMisses), sizeMissesMost)
}

// plan begins a round if one is due. most says how large packets may leave; it is asked where larger sizes are to be
// tried. large says that large frames went there since the last round. Sizes ascend: a probe behind a larger one would
// leave in one call with it (UDP_SEGMENT), and virtual networks drop such whole.
func (s *mtuSearch) plan(now time.Time, mtu, least int, doubt, large bool, within time.Duration,
	most func() int) *mtuRound {
	if now.Before(s.dueAt) || !doubt && !large && now.Before(s.quiet) {
		return nil
	}
	r := &s.rounds[s.next%roundsKept]
	s.next++
	*r = mtuRound{token: newToken(), at: now, mtu: mtu, sizes: append(r.sizes[:0], 0), answered: r.answered[:0]}
	if doubt {
		for _, size := range probeSizes {
			if size < mtu && size >= least {
				r.sizes = append(r.sizes, size)
			}
		}
		for range sizeCopies - 1 {
			r.sizes = append(r.sizes, mtu)
		}
	}
	r.sizes = append(r.sizes, mtu)
	if !doubt && !now.Before(s.raise) {
		s.raise = now.Add(min(raiseFirst<<min(s.raises, 8), raiseEvery))
		s.raises++
		r.sizes = appendLarger(r.sizes, mtu, most())
	}
	s.dueAt, s.quiet = now.Add(confirmEvery), now.Add(sizeEvery)
	if doubt {
		s.dueAt = now.Add(within)
	}
	return r
}

// appendLarger adds the sizes above the path's MTU that may leave.
func appendLarger(sizes []int, mtu, most int) []int {
	for _, size := range probeSizes {
		if size > mtu && size < most {
			sizes = append(sizes, size)
		}
	}
	if most > mtu {
		sizes = append(sizes, most)
	}
	return sizes
}

// awaits says whether the latest round of the path's MTU is to be judged still.
func (s *mtuSearch) awaits(now time.Time, mtu int, within time.Duration) bool {
	if s.next == s.floor {
		return false
	}
	r := &s.rounds[(s.next-1)%roundsKept]
	return r.mtu == mtu && now.Sub(r.at) < within && (len(r.answered) == 0 || r.hasMissed())
}

// drop takes the last round back: its probes did not leave.
func (s *mtuSearch) drop(r *mtuRound) { r.sizes, r.mtu = r.sizes[:0], 0 }

// answer takes an answer to a probe of a round, and says what the path's MTU is now: mtu, or a larger one. An answer of
// the size that was the path's MTU then is none that it is to be raised to. known says that there is such a round.
func (s *mtuSearch) answer(token uint64, size, mtu int) (_ int, known bool) {
	for n := s.next; n > 0 && s.next-n < roundsKept; n-- {
		r := &s.rounds[(n-1)%roundsKept]
		if r.token != token {
			continue
		}
		if n > s.floor && slices.Contains(r.sizes, size) {
			if !slices.Contains(r.answered, size) {
				r.answered = append(r.answered, size)
			}
			if size > r.mtu {
				mtu = max(mtu, size)
			}
		}
		return mtu, true
	}
	return mtu, false
}
