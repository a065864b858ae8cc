package dns

import (
	"sync"
	"time"
)

// improvement is what a query has beyond what its client asked for. There are servers, and boxes on the way to them,
// that do not bear it; for those it is withdrawn.
type improvement uint8

const (
	improveEDNS improvement = iota // EDNS where the client has none: longer answers over UDP (RFC 6891)
	improveCase                    // letters in random case, which a forger has to guess (draft-vixie-dnsext-dns0x20)
	improveTCP                     // TCP where an answer over UDP is cut, or may be forged
	improvements
)

// withdrawal is for how long an improvement is left out: first, then twice as long each time that it fails again.
var withdrawal = [improvements]struct{ first, longest time.Duration }{
	improveEDNS: {5 * time.Minute, time.Hour},
	improveCase: {5 * time.Minute, time.Hour},
	improveTCP:  {10 * time.Second, 10 * time.Minute}, // what is left without it is less: cut answers
}

const (
	// doubts is how many failures that may have another cause, such as a datagram that was lost, withdraw an
	// improvement.
	doubts = 2
	// agreements is how many answers in a row have to be the same without the improvement, until it counts as borne.
	agreements = 3
	// provenFor is how long an improvement counts as borne after it was in an answer that only it can have.
	provenFor = time.Hour
	// maxAbilities bounds the servers that are remembered; containers choose theirs themselves.
	maxAbilities = 1000
)

// abilities remembers which improvements servers bear.
type abilities struct {
	mu       sync.Mutex
	now      func() time.Time
	byServer map[upstream]*[improvements]ability
}

// ability is what is known of one improvement at one server.
type ability struct {
	doubts, agreed int
	withdrawn      time.Time     // until then; zero: it is not
	period         time.Duration // of the last withdrawal
	proven         time.Time     // until then
}

func newAbilities() *abilities {
	return &abilities{now: time.Now, byServer: map[upstream]*[improvements]ability{}}
}

// of returns what is known of one improvement at u. The caller holds mu.
func (a *abilities) of(u upstream, i improvement) *ability {
	all := a.byServer[u]
	if all == nil {
		if len(a.byServer) >= maxAbilities {
			clear(a.byServer)
		}
		all = &[improvements]ability{}
		a.byServer[u] = all
	}
	return &all[i]
}

// tries says whether a query to u should have the improvement.
func (a *abilities) tries(u upstream, i improvement) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.now().Before(a.of(u, i).withdrawn)
}

// proven says whether u is known to bear the improvement.
func (a *abilities) proven(u upstream, i improvement) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now().Before(a.of(u, i).proven)
}

// worked notes that an answer came with the improvement which would not have come if u did not bear it.
func (a *abilities) worked(u upstream, i improvement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*a.of(u, i) = ability{proven: a.now().Add(provenFor)}
}

// agreed notes that u answered the same with the improvement and without.
func (a *abilities) agreed(u upstream, i improvement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	one := a.of(u, i)
	if one.agreed++; one.agreed >= agreements {
		one.proven = a.now().Add(provenFor)
	}
}

// failed notes that u answered only without the improvement. certain is whether nothing else can have been the cause.
func (a *abilities) failed(u upstream, i improvement, certain bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	one := a.of(u, i)
	if one.doubts++; !certain && one.doubts < doubts {
		return
	}
	limits := withdrawal[i]
	one.period = min(max(2*one.period, limits.first), limits.longest)
	// The next failure, once it is tried again, is enough.
	one.withdrawn, one.doubts, one.agreed, one.proven = a.now().Add(one.period), doubts-1, 0, time.Time{}
}

// forget forgets all: the host's servers have changed, and with them perhaps the network that they are on.
func (a *abilities) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.byServer)
}
