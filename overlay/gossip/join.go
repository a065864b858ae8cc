package gossip

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// joinsPerSeed is how many hosts join a seed in each time that passes between two joins (Config.Rejoin), where it
	// is a member already: a join takes time and bytes for each member; if all hosts did so that would be the square.
	joinsPerSeed = 32
	// lookupTime bounds how long the address of a seed is looked up before it is joined.
	lookupTime = 3 * time.Second
)

// join joins the seeds, again and again.
func (b *Backend) join() {
	began := time.Now()
	wait, settling := 200*time.Millisecond, settle
	for {
		settled := b.config.Paths == nil || settling >= b.config.Rejoin
		if seeds, rest := b.seedsToJoin(settled, rand.Float64); len(seeds) > 0 {
			_, err := b.list.Join(seeds)
			if rest > 0 {
				err = nil // the others are members
			}
			b.joined(oneLine(err))
		} else if rest > 0 {
			b.joined(nil)
		}
		if known := b.known(); len(known) > 0 {
			if _, err := b.list.Join(known); err != nil {
				b.config.Log.Debug("cluster: hosts that are reached are not joined", "error", err)
			}
		}
		every := b.config.Rejoin
		if b.numMembers() >= 2 {
			if b.config.Paths != nil {
				every = min(settling, every)
				settling = 2 * every
			}
		} else { // nobody is there yet
			every = min(wait, every)
			wait = min(2*wait, lonely)
			if len(b.config.Seeds) == 0 || time.Since(began) >= b.config.Alone {
				b.mu.Lock()
				b.mu.alone = true
				b.mu.Unlock()
				b.wakeWatch()
			}
		}
		t := time.NewTimer(every)
		select {
		case <-b.ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// seedsToJoin are those that are to be joined now, and how many are not. Those that are no members are: they may be in
// another half of a partition. Of members, which have all that there is to hear of, each is joined by some hosts: it
// may have started again without a word, and then has nobody else to join.
func (b *Backend) seedsToJoin(settled bool, random func() float64) (seeds []string, rest int) {
	n := b.numMembers()
	if n <= joinsPerSeed || !settled {
		return b.config.Seeds, 0
	}
	addrs := map[netip.AddrPort]bool{}
	b.mu.Lock()
	for _, node := range b.mu.members {
		if a, is := netip.AddrFromSlice(node.Addr); is {
			addrs[netip.AddrPortFrom(a.Unmap(), node.Port)] = true
		}
	}
	b.mu.Unlock()
	for _, seed := range b.config.Seeds {
		if random() < joinsPerSeed/float64(n) || !b.isMember(seed, addrs) {
			seeds = append(seeds, seed)
		}
	}
	return seeds, len(b.config.Seeds) - len(seeds)
}

// isMember says whether all addresses of a seed are those of members.
func (b *Backend) isMember(seed string, members map[netip.AddrPort]bool) bool {
	host, service, err := net.SplitHostPort(seed)
	if err != nil {
		host, service = strings.Trim(seed, "[]"), strconv.Itoa(DefaultPort)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return false
	}
	addrs := make([]netip.Addr, 1)
	if addrs[0], err = netip.ParseAddr(host); err != nil {
		ctx, cancel := context.WithTimeout(b.ctx, lookupTime)
		defer cancel()
		if addrs, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
			return false
		}
	}
	return len(addrs) > 0 && !slices.ContainsFunc(addrs, func(a netip.Addr) bool {
		return !members[netip.AddrPortFrom(a.Unmap(), uint16(port))]
	})
}

// joined notes whether seeds were joined, and logs the first failure after a success. That of a host that has found
// others is a note in Health alone: they lead to the rest.
func (b *Backend) joined(err error) {
	b.mu.Lock()
	first := err != nil && b.mu.joinErr == nil
	b.mu.joinErr = err
	b.mu.Unlock()
	if first && b.numMembers() < 2 {
		b.config.Log.Warn("no host of the cluster is joined: they are tried again for ever", "error", err)
	}
}

// oneLine has the parts of memberlist's error, which has a line for each seed, in one line.
func oneLine(err error) error {
	var parts interface{ WrappedErrors() []error }
	if !errors.As(err, &parts) {
		return err
	}
	var texts []string
	for _, part := range parts.WrappedErrors() {
		texts = append(texts, strings.TrimSpace(part.Error()))
	}
	return errors.New(strings.Join(texts, "; "))
}
