package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/sandbox"
)

// try asks for the name and connects, from the container's own namespace, and compares what comes of it with what was
// predicted.
func (t *trace) try(ctx context.Context) error {
	if t.c.IsVM() {
		t.untried("nothing can be tried from within a virtual machine: try it there, or from a container of its network")
		return nil
	}
	if t.asked != "" {
		done, err := t.tryName(ctx)
		if err != nil || done {
			return err
		}
	}
	w := sandbox.Trial{Network: t.out.Proto, Dst: t.dst, Wait: t.q.Timeout}
	if t.out.Proto == "udp" {
		w.Payload = []byte("\n")
		if t.dst.Port() == 53 {
			w.Payload, _ = new(mdns.Msg).SetQuestion(".", mdns.TypeNS).Pack() // it always packs
		}
	}
	done, err := t.enter(ctx, w)
	if err != nil {
		return err
	}
	actual := outcomeOf(done[0], t.out.Proto)
	t.out.Actual = &actual
	t.compare(ctx, actual)
	return nil
}

// tryName asks the container's server for the name as the container would. It says whether that is the end.
func (t *trace) tryName(ctx context.Context) (done bool, err error) {
	server := stubAddrOf(t.c)
	if t.c.Moves {
		for _, e := range t.c.Endpoints {
			if e.Gateway4.IsValid() {
				server = netip.AddrPortFrom(e.Gateway4, 53)
			}
		}
	}
	m := new(mdns.Msg).SetQuestion(mdns.Fqdn(t.asked), t.question)
	payload, err := m.Pack()
	if err != nil {
		return false, err
	}
	tried, err := t.enter(ctx, sandbox.Trial{Network: "udp", Dst: server, Payload: payload, Wait: t.q.Timeout})
	if err != nil {
		return false, err
	}
	predicted := t.out.Predicted.Kind == api.TraceUnresolved
	r := new(mdns.Msg)
	if tried[0].Error != "" || r.Unpack(tried[0].Answer) != nil || r.Id != m.Id {
		t.out.Actual = &api.TraceOutcome{Kind: api.TraceUnresolved, Took: tried[0].Took,
			Text: fmt.Sprintf("no answer from the server of names at %s: %s", server, tried[0].Error)}
		t.out.Agrees, t.out.Because = "no", "the server answers usernet itself, and not the container"
		return true, nil
	}
	addrs := addressesIn(r.Answer)
	t.out.Steps = append(t.out.Steps, api.TraceStep{Stage: "asked", Text: fmt.Sprintf("%s was answered by %s: %s %s",
		t.asked, server, mdns.RcodeToString[r.Rcode], join(addrs))})
	if len(addrs) == 0 {
		t.out.Actual = &api.TraceOutcome{Kind: api.TraceUnresolved, Took: tried[0].Took,
			Text: t.asked + " has no address: " + mdns.RcodeToString[r.Rcode]}
		t.out.Agrees, t.out.Because = "yes", "the name has no address"
		if !predicted {
			t.out.Agrees, t.out.Because = "no", "the name has an address for usernet itself, and none for the container"
		}
		return true, nil
	}
	if predicted {
		t.out.Actual = &api.TraceOutcome{Kind: api.TraceReached, Text: t.asked + " is " + join(addrs),
			Took: tried[0].Took}
		t.out.Agrees, t.out.Because = "no", "the name has an address for the container, and none for usernet itself"
		return true, nil
	}
	return false, nil
}

// untried says why there was no attempt.
func (t *trace) untried(why string) {
	t.out.Actual = &api.TraceOutcome{Kind: api.TraceFailed, Text: why}
	t.out.Agrees, t.out.Because = "unclear", why
}

// outcomeOf is what an attempt came to.
func outcomeOf(r sandbox.Tried, proto string) api.TraceOutcome {
	o := api.TraceOutcome{Kind: api.TraceFailed, Text: r.Error, Took: r.Took}
	switch r.Errno {
	case unix.ECONNREFUSED, unix.ECONNRESET:
		o.Kind = api.TraceRefused
	case unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT, unix.ENETDOWN,
		unix.EINVAL:
		o.Kind = api.TraceUnreachable
	case unix.ETIMEDOUT:
		o.Kind, o.Text = api.TraceNoAnswer, "no answer within "+r.Took.Round(time.Millisecond).String()
	}
	if r.Error != "" {
		return o
	}
	own := ", from "
	o.Kind, o.Text = api.TraceReached, "connected"
	if proto != "tcp" {
		o.Text, own = fmt.Sprintf("an answer of %d bytes", len(r.Answer)), ", to "
	}
	if r.Local.IsValid() {
		o.Text += own + addressOf(r.Local)
	}
	return o
}

// compare says whether an attempt agrees with the prediction.
func (t *trace) compare(ctx context.Context, actual api.TraceOutcome) {
	verdict := func(agrees, because string) { t.out.Agrees, t.out.Because = agrees, because }
	told := actual.Kind == api.TraceUnreachable || actual.Kind == api.TraceNoAnswer
	switch t.out.Predicted.Kind {
	case api.TraceProhibited:
		if actual.Kind == api.TraceRefused && t.out.Proto == "tcp" || actual.Kind == api.TraceUnreachable &&
			t.out.Proto != "tcp" {
			verdict("yes", "the refusal is the policy's")
			return
		}
	case api.TraceUnreachable, api.TraceNoAnswer:
		if told {
			verdict("yes", "it did not get through")
			return
		}
	case api.TracePasses:
		t.comparePassed(ctx, actual, verdict)
		return
	}
	verdict("no", fmt.Sprintf("%s was predicted; please report it with this output", t.out.Predicted.Kind))
}

// comparePassed is compare for what usernet lets through.
func (t *trace) comparePassed(ctx context.Context, actual api.TraceOutcome, verdict func(agrees, because string)) {
	switch {
	case t.published != nil && t.out.Proto == "tcp" && actual.Kind == api.TraceReached:
		verdict("yes", "it got through to the published port; whether something listens on "+t.published.String()+
			" is its own matter")
	case t.published != nil && t.out.Proto == "tcp" && actual.Kind == api.TraceRefused:
		verdict("yes", "it got through to the published port, which closes it: nothing listens on "+
			t.published.String())
	case actual.Kind == api.TraceReached:
		verdict("yes", "it got through")
	case t.from != nil && t.out.Proto == "tcp":
		ctx, cancel := context.WithTimeout(ctx, t.q.Timeout)
		defer cancel()
		err := t.from(ctx)
		errno := syscall.Errno(0)
		_ = errors.As(err, &errno)
		switch {
		case err == nil:
			verdict("no", "the host itself does connect there")
		case outcomeOf(sandbox.Tried{Error: "failed", Errno: hostErrno(err, errno)}, "tcp").Kind == actual.Kind:
			verdict("yes", "it got through: the host itself gets the same answer")
		default:
			verdict("unclear", "the host itself gets another answer: "+err.Error())
		}
	case actual.Kind == api.TraceRefused:
		verdict("yes", "it got through: nothing listens on that port")
	case actual.Kind == api.TraceNoAnswer && t.out.Proto == "udp":
		verdict("yes", "it was sent; not every service answers such a datagram")
	case actual.Kind == api.TraceNoAnswer:
		verdict("unclear", "it got through, and is not answered: a filter of the destination's, perhaps")
	case actual.Kind == api.TraceUnreachable && t.from != nil:
		verdict("yes", "it got through to the host's network, which says that there is no way")
	default:
		verdict("no", "the container's kernel says that there is no way")
	}
}

// hostErrno is the number of an error of the host's own attempt.
func hostErrno(err error, errno syscall.Errno) syscall.Errno {
	if errors.Is(err, context.DeadlineExceeded) {
		return unix.ETIMEDOUT
	}
	return errno
}
