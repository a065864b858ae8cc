package dns

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// faulty is a server that does not bear something. It notes which questions came.
type faulty struct {
	edns    func(dns.ResponseWriter, *dns.Msg) // what it does with EDNS; nil: answers
	mixed   func(dns.ResponseWriter, *dns.Msg) // with letters in another case than small
	lowers  bool                               // repeats questions in small letters
	noTCP   bool
	cut     bool // answers are too long for UDP
	missing bool // it has no such name

	mu   sync.Mutex
	came []string
}

func (f *faulty) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	tcp := w.RemoteAddr().Network() == "tcp"
	mixed := strings.ToLower(m.Question[0].Name) != m.Question[0].Name
	note := map[bool]string{true: "tcp", false: "udp"}[tcp]
	if m.IsEdns0() != nil {
		note += " edns"
	}
	if mixed {
		note += " mixed"
	}
	f.mu.Lock()
	f.came = append(f.came, note)
	f.mu.Unlock()
	switch {
	case tcp && f.noTCP:
		w.Close()
		return
	case m.IsEdns0() != nil && f.edns != nil:
		f.edns(w, m)
		return
	case mixed && f.mixed != nil:
		f.mixed(w, m)
		return
	}
	if f.lowers {
		m.Question[0].Name = strings.ToLower(m.Question[0].Name)
	}
	if f.missing {
		w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeNameError))
		return
	}
	if f.cut && !tcp {
		r := new(dns.Msg).SetReply(m)
		r.Truncated = true
		w.WriteMsg(r)
		return
	}
	answerWith("192.0.2.1", 0)(w, m)
}

// took returns what came since the last call.
func (f *faulty) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	came := f.came
	f.came = nil
	return came
}

func says(rcode int) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, m *dns.Msg) { w.WriteMsg(new(dns.Msg).SetRcode(m, rcode)) }
}

// saysWithoutQuestion is what old servers do: the header alone.
func saysWithoutQuestion(rcode int) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg).SetRcode(m, rcode)
		r.Question = nil
		w.WriteMsg(r)
	}
}

// long has enough letters that their case is never all small by chance, whatever n.
func long(n int) string { return fmt.Sprintf("a-rather-long-name-with-many-letters-n%d.example", n) }

// TestServersThatServeTheHostServeContainers asks servers that answer a plain question, and not what we make of it. The
// client is answered; once that is known of the server, with a single query; and later our improvements are tried
// again.
func TestServersThatServeTheHostServeContainers(t *testing.T) {
	const all, plain = "udp edns mixed", "udp"
	for name, test := range map[string]struct {
		server *faulty
		later  []string // queries for one question once the server is known
	}{
		"nothing is wrong": {&faulty{}, []string{all}},
		"FORMERR to EDNS":  {&faulty{edns: says(dns.RcodeFormatError)}, []string{"udp mixed"}},
		"FORMERR without a question": {&faulty{edns: saysWithoutQuestion(dns.RcodeFormatError)},
			[]string{"udp mixed"}},
		"NOTIMP to EDNS":                 {&faulty{edns: says(dns.RcodeNotImplemented)}, []string{"udp mixed"}},
		"SERVFAIL to EDNS":               {&faulty{edns: says(dns.RcodeServerFailure)}, []string{"udp mixed"}},
		"EDNS is dropped":                {&faulty{edns: silent}, []string{"udp mixed"}},
		"case is dropped":                {&faulty{mixed: silent}, []string{"udp edns"}},
		"EDNS and case are dropped":      {&faulty{edns: silent, mixed: silent}, []string{plain}},
		"FORMERR to EDNS, case dropped":  {&faulty{edns: says(dns.RcodeFormatError), mixed: silent}, []string{plain}},
		"no such name but in small ones": {&faulty{mixed: says(dns.RcodeNameError)}, []string{"udp edns"}},
		"no such name with EDNS":         {&faulty{edns: says(dns.RcodeNameError)}, []string{"udp mixed"}},
		"no such name but plainly": {&faulty{edns: says(dns.RcodeNameError), mixed: says(dns.RcodeNameError)},
			[]string{plain}},
		"REFUSED but in small letters": {&faulty{mixed: says(dns.RcodeRefused)}, []string{"udp edns"}},
		"case is not repeated":         {&faulty{lowers: true}, []string{"udp edns"}},
		"case is not repeated, no TCP": {&faulty{lowers: true, noTCP: true}, []string{"udp edns"}},
		"cut, with TCP":                {&faulty{cut: true}, []string{all, "tcp edns mixed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up, _ := server(t, test.server.ServeDNS)
			s := newServer(t, Config{Upstreams: upstreams(t, up)})
			now := time.Now()
			s.transport.abilities.now = func() time.Time { return now }
			asks := func(n int) []string {
				if got := resolved(t, s, outsider, long(n), dns.TypeA); got != "NOERROR 192.0.2.1" {
					t.Fatalf("question %d: %s", n, got)
				}
				return test.server.took()
			}
			for n := range 4 { // dropped datagrams take two
				asks(n)
			}
			// A busy machine may take longer than the first form waits: then there are more.
			eventually(t, func() bool { return fmt.Sprint(asks(5)) == fmt.Sprint(test.later) },
				"once known, it is not asked "+fmt.Sprint(test.later))
			now = now.Add(2 * time.Hour)
			if first := asks(6)[0]; first != all {
				t.Errorf("after a long time, it is asked %s first", first)
			}
		})
	}
}

// TestNoAnswerIsChangedIntoAnother is about answers that are what the server says to the client's own question.
func TestNoAnswerIsChangedIntoAnother(t *testing.T) {
	withEDNS := func() *dns.Msg {
		m := question(long(1), dns.TypeA)
		m.SetEdns0(1232, true)
		return m
	}
	for name, test := range map[string]struct {
		server *faulty
		asked  *dns.Msg
		rcode  int
		cut    bool
	}{
		"the client's own EDNS is refused": {&faulty{edns: says(dns.RcodeFormatError)}, withEDNS(),
			dns.RcodeFormatError, false},
		"all is refused": {&faulty{edns: says(dns.RcodeRefused), mixed: says(dns.RcodeRefused)},
			question("1.", dns.TypeA), dns.RcodeSuccess, false},
		"no such name":            {&faulty{missing: true}, question(long(1), dns.TypeA), dns.RcodeNameError, false},
		"no such name, with EDNS": {&faulty{missing: true}, withEDNS(), dns.RcodeNameError, false},
		"cut, and no TCP": {&faulty{cut: true, noTCP: true}, question(long(1), dns.TypeA), dns.RcodeSuccess,
			true},
		"cut, and TCP": {&faulty{cut: true}, question(long(1), dns.TypeA), dns.RcodeSuccess, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up, _ := server(t, test.server.ServeDNS)
			s := newServer(t, Config{Upstreams: upstreams(t, up)})
			for range 3 {
				r, _ := s.resolve(context.Background(), outsider, test.asked)
				if r.Rcode != test.rcode || r.Truncated != test.cut || r.Question[0] != test.asked.Question[0] {
					t.Errorf("%v", r)
				}
			}
		})
	}
}

// TestQuestionsWithoutAnAnswerAreSentAgain loses the first datagram of each question.
func TestQuestionsWithoutAnAnswerAreSentAgain(t *testing.T) {
	var mu sync.Mutex
	lost := map[string]bool{}
	up, _ := server(t, func(w dns.ResponseWriter, m *dns.Msg) {
		mu.Lock()
		name := strings.ToLower(m.Question[0].Name)
		first := !lost[name]
		lost[name] = true
		mu.Unlock()
		if !first {
			answerWith("192.0.2.1", 0)(w, m)
		}
	})
	s := newServer(t, Config{Upstreams: upstreams(t, up)})
	if got := resolved(t, s, outsider, "www.example", dns.TypeA); got != "NOERROR 192.0.2.1" {
		t.Error(got)
	}
}

func TestAbilities(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAbilities()
	a.now = func() time.Time { return now }
	u, err := parseUpstream("192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	is := func(what string, tries, proven bool) {
		t.Helper()
		if a.tries(u, improveEDNS) != tries || a.proven(u, improveEDNS) != proven {
			t.Errorf("%s: tried %v, proven %v", what, a.tries(u, improveEDNS), a.proven(u, improveEDNS))
		}
	}
	is("at first", true, false)
	a.failed(u, improveEDNS, false)
	is("one doubt", true, false)
	a.worked(u, improveEDNS)
	is("an answer", true, true)
	a.failed(u, improveEDNS, false)
	is("one doubt after an answer", true, true)
	a.failed(u, improveEDNS, false)
	is("two doubts", false, false)
	for period := withdrawal[improveEDNS].first; period < 2*withdrawal[improveEDNS].longest; period *= 2 {
		now = now.Add(min(period, withdrawal[improveEDNS].longest) - time.Second)
		is("a second before it is tried again", false, false)
		now = now.Add(time.Second)
		is("when it is tried again", true, false)
		a.failed(u, improveEDNS, false) // one is enough now
		is("when it has failed again", false, false)
	}
	now = now.Add(2 * time.Hour)
	for range agreements {
		is("before all agree", true, false)
		a.agreed(u, improveEDNS)
	}
	is("three agree", true, true)
	now = now.Add(provenFor)
	is("long after", true, false)
	a.failed(u, improveEDNS, true)
	a.forget()
	is("forgotten", true, false)
	for i := range 3 * maxAbilities {
		other, err := parseUpstream(fmt.Sprintf("10.0.%d.%d", i/256, i%256))
		if err != nil {
			t.Fatal(err)
		}
		a.failed(other, improveEDNS, true)
		if len(a.byServer) > maxAbilities {
			t.Fatalf("%d servers are remembered", len(a.byServer))
		}
	}
}
