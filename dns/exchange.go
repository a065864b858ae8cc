package dns

import (
	"context"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/usernet/usernet/internal/isolate"
)

// An exchange asks one server one question over UDP. It begins with all improvements that the server is not known to
// refuse, and comes down to the client's own question when there is no answer, or one that an improvement may be the
// cause of:
//
//	{EDNS, mixed case} -> {mixed case} -> {the client's own question}
//	                  \-> {EDNS}       ->                                where EDNS is not what fails
//
// What the client's own question is answered is the answer, whatever the others were answered: no answer is changed
// into another. Which improvements failed is remembered (abilities). The next form is sent resendAfter after the last
// one, and the sockets of the former ones stay open, as an answer may only be slow; so each form is also a
// retransmission.
type exchange struct {
	t   *transport
	u   upstream
	own *dns.Msg // the client's question

	forms   []form // not sent yet
	sent    []form // and not answered
	wg      sync.WaitGroup
	replies chan reply

	refused  *dns.Msg // an answer to an improved form that the client's own question may be answered otherwise
	refusing form     // what it answers
}

// form is which improvements a query has.
type form struct{ edns, mixed bool }

// reply is what came of one query.
type reply struct {
	form form
	q, r *dns.Msg
	err  error
}

// maxForms bounds how many queries one exchange sends over UDP: three of the ladder, and two that judge puts in their
// place.
const maxForms = 5

// resendAfter is how long an exchange waits before it sends the next form: a third of the time that the server has,
// as there are three, but no longer than a second.
func resendAfter(timeout time.Duration) time.Duration { return min(timeout/3, time.Second) }

// ladder is the order in which the forms are sent.
func (t *transport) ladder(u upstream, own *dns.Msg) []form {
	all := form{
		edns:  own.IsEdns0() == nil && t.abilities.tries(u, improveEDNS),
		mixed: t.abilities.tries(u, improveCase),
	}
	forms := []form{all}
	if all.edns && all.mixed {
		proven := t.abilities.proven(u, improveEDNS) // then it is not the one that fails
		forms = append(forms, form{edns: proven, mixed: !proven})
	}
	for len(forms) < 2 || forms[len(forms)-1] != (form{}) {
		forms = append(forms, form{})
	}
	return forms
}

// overUDP asks u and returns its answer to own. The context has a deadline.
func (t *transport) overUDP(ctx context.Context, u upstream, own *dns.Msg) (*dns.Msg, error) {
	x := &exchange{t: t, u: u, own: own, forms: t.ladder(u, own), replies: make(chan reply, maxForms)}
	deadline, _ := ctx.Deadline()
	return x.run(ctx, resendAfter(time.Until(deadline)))
}

func (x *exchange) run(ctx context.Context, wait time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer x.wg.Wait()
	defer cancel()
	resend := time.NewTimer(wait)
	defer resend.Stop()
	x.send(ctx)
	for {
		select {
		case p := <-x.replies:
			r, err := x.judge(ctx, p)
			switch {
			case r != nil:
				return r, nil
			case err == nil && x.send(ctx):
				resend.Reset(wait)
			case len(x.sent) == 0: // nothing more will come
				return x.rest(err)
			}
		case <-resend.C:
			if !x.send(ctx) && x.refused != nil {
				return x.refused, nil
			}
			resend.Reset(wait)
		case <-ctx.Done():
			return x.rest(ctx.Err())
		}
	}
}

// rest is the result where no better answer will come.
func (x *exchange) rest(err error) (*dns.Msg, error) {
	if x.refused != nil {
		return x.refused, nil
	}
	if err == nil {
		err = errNoSense
	}
	return nil, err
}

// send sends the next form, and says whether there was one.
func (x *exchange) send(ctx context.Context) bool {
	if len(x.forms) == 0 {
		return false
	}
	f := x.forms[0]
	q := f.query(x.own)
	f.mixed = q.Question[0].Name != x.own.Question[0].Name // there may be no letters, or luck
	x.forms, x.sent = x.forms[1:], append(x.sent, f)
	x.wg.Go(func() {
		var r *dns.Msg
		err := isolate.Call(x.t.log, "asking a DNS server", func() (err error) {
			r, err = oneQuery(ctx, "udp", x.u, q)
			return err
		}, "server", x.u.String())
		x.replies <- reply{f, q, r, err} // there is room for all
	})
	return true
}

// query is the question of own in this form.
func (f form) query(own *dns.Msg) *dns.Msg {
	q := own.Copy()
	q.Id = dns.Id()
	if f.edns {
		q.SetEdns0(ednsSize, false)
	}
	if f.mixed {
		q.Question[0].Name = mixCase(q.Question[0].Name)
	}
	return q
}

// judge returns the answer where p is one. Without one, an error means that the server cannot be reached in this way;
// none, that the next form should be tried at once.
func (x *exchange) judge(ctx context.Context, p reply) (*dns.Msg, error) {
	x.drop(p.form)
	if p.err != nil {
		return nil, p.err
	}
	if len(p.r.Question) == 1 && p.r.Question[0].Name != p.q.Question[0].Name {
		// It may be forged, or of a server that keeps no case. Over TCP nobody can forge what he does not see.
		r, ok := x.overTCP(ctx, p)
		if !ok {
			x.skipTo(form{})
			x.refuse(form{edns: false, mixed: true}, nil)
			return nil, nil
		}
		if r.Question[0].Name != p.q.Question[0].Name {
			x.t.abilities.failed(x.u, improveCase, true)
		}
		return x.accept(p, r), nil
	}
	if p.r.Truncated {
		if r, ok := x.overTCP(ctx, p); ok {
			return x.accept(p, r), nil
		}
		return x.accept(p, p.r), nil // the client may try itself
	}
	a := x.t.abilities
	switch {
	case p.form.edns && ednsRefused(p.r.Rcode, a.proven(x.u, improveEDNS)):
		x.skipTo(form{mixed: p.form.mixed})
		x.refuse(form{edns: true}, p.r)
		return nil, nil
	case p.form.mixed && len(p.r.Question) == 0, p.form.mixed && !positive(p.r) && !a.proven(x.u, improveCase):
		x.clear(p)
		if p.form.edns {
			x.forms = []form{{edns: true}, {}}
		}
		x.skipTo(form{edns: p.form.edns})
		x.refuse(form{mixed: true}, p.r)
		return nil, nil
	case p.form.edns && !positive(p.r) && !a.proven(x.u, improveEDNS):
		x.clear(p)
		x.skipTo(form{})
		x.refuse(form{edns: true}, p.r)
		return nil, nil
	case len(p.r.Question) == 0:
		p.r.Question = p.q.Question
	}
	return x.accept(p, p.r), nil
}

// ednsRefused says whether EDNS may be why a server answers so (RFC 6891, 7, and RFC 2671, 5.3).
func ednsRefused(rcode int, proven bool) bool {
	switch rcode {
	case dns.RcodeFormatError, dns.RcodeNotImplemented, dns.RcodeBadVers:
		return true
	case dns.RcodeServerFailure, dns.RcodeRefused:
		return !proven
	}
	return false
}

// positive says whether r has what was asked for, which a server that does not understand the question cannot have.
func positive(r *dns.Msg) bool { return r.Rcode == dns.RcodeSuccess && answered(r) }

// refuse notes an answer that the improvements in f may be the cause of; r may be nil.
func (x *exchange) refuse(f form, r *dns.Msg) {
	x.refusing.edns = x.refusing.edns || f.edns
	x.refusing.mixed = x.refusing.mixed || f.mixed
	if r != nil {
		if len(r.Question) == 0 {
			r.Question = x.own.Copy().Question
		}
		x.refused = x.restored(r)
	}
}

// clear takes the improvements that p's query was without off those that may be the cause of the answer before, if p
// is the same answer.
func (x *exchange) clear(p reply) {
	if x.refused == nil || x.refused.Rcode != p.r.Rcode || positive(x.refused) != positive(p.r) {
		return
	}
	if x.refusing.edns && !p.form.edns {
		x.refusing.edns = false
		x.t.abilities.agreed(x.u, improveEDNS)
	}
	if x.refusing.mixed && !p.form.mixed {
		x.refusing.mixed = false
		x.t.abilities.agreed(x.u, improveCase)
	}
}

// skipTo leaves out the forms before f that are not sent yet. f stays, also where it was sent before.
func (x *exchange) skipTo(f form) {
	for len(x.forms) > 1 && x.forms[0] != f {
		x.forms = x.forms[1:]
	}
}

// drop notes that a form was answered.
func (x *exchange) drop(f form) {
	for i := range x.sent {
		if x.sent[i] == f {
			x.sent = append(x.sent[:i], x.sent[i+1:]...)
			return
		}
	}
}

// accept returns r as the exchange's answer, after p was answered, and notes what that says about the improvements.
func (x *exchange) accept(p reply, r *dns.Msg) *dns.Msg {
	a := x.t.abilities
	same := x.refused != nil && x.refused.Rcode == r.Rcode && positive(x.refused) == positive(r)
	for _, one := range []struct {
		improvement          improvement
		in, refusing, silent bool
	}{
		{improveEDNS, p.form.edns, x.refusing.edns, x.silent(form{edns: true}, p.form)},
		{improveCase, p.form.mixed, x.refusing.mixed, x.silent(form{mixed: true}, p.form)},
	} {
		switch {
		case one.in && positive(r) && r.Question[0].Name == p.q.Question[0].Name:
			a.worked(x.u, one.improvement)
		case one.in:
		case one.refusing && same:
			a.agreed(x.u, one.improvement)
		case one.refusing:
			// A server that fails now and then is not one that always does.
			certain := x.refused == nil || x.refused.Rcode != dns.RcodeServerFailure
			a.failed(x.u, one.improvement, certain)
		case one.silent:
			a.failed(x.u, one.improvement, false)
		}
	}
	return x.restored(r)
}

// silent says whether an improvement may be why forms that were sent are not answered: one has it that has nothing
// else beyond the form that was answered, or else one has both.
func (x *exchange) silent(improvement, answered form) bool {
	both, alone, other := false, false, false
	for _, f := range x.sent {
		beyond := form{edns: f.edns && !answered.edns, mixed: f.mixed && !answered.mixed}
		switch beyond {
		case form{}:
		case form{edns: true, mixed: true}:
			both = true
		case improvement:
			alone = true
		default:
			other = true
		}
	}
	return alone || both && !other
}

// restored gives an answer the case of the client's question.
func (x *exchange) restored(r *dns.Msg) *dns.Msg {
	restoreCase(r, x.own.Question[0].Name)
	return r
}

// tcpShare is the part of the time left that TCP gets, so that there is some for what is tried without.
const tcpShare = 2

// overTCP asks p's question again over TCP; !ok: that did not work, or is known not to.
func (x *exchange) overTCP(ctx context.Context, p reply) (r *dns.Msg, ok bool) {
	if !x.t.abilities.tries(x.u, improveTCP) {
		return nil, false
	}
	deadline, _ := ctx.Deadline()
	one, cancel := context.WithTimeout(ctx, time.Until(deadline)/tcpShare)
	defer cancel()
	r, err := oneQuery(one, "tcp", x.u, p.q)
	if err != nil || len(r.Question) == 0 {
		if ctx.Err() == nil {
			x.t.abilities.failed(x.u, improveTCP, true)
		}
		return nil, false
	}
	x.t.abilities.worked(x.u, improveTCP)
	return r, true
}
