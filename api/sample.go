package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
)

// Sample is what happens on the networks at one time. Counts are since each began; two samples make rates.
type Sample struct {
	Time       time.Time         `json:"time"`
	Interfaces []InterfaceCounts `json:"interfaces"`
	Flows      []Flow            `json:"flows"`
	Questions  []DNSQuestion     `json:"questions"` // the latest ones, oldest first
	Refusals   []Refusal         `json:"refusals"`  // the latest ones, oldest first
	Ports      []ContainerPort   `json:"ports"`
}

// InterfaceCounts are the counts of a container's interface on a network, as the container sees it.
type InterfaceCounts struct {
	Container string            `json:"container"` // name
	Network   string            `json:"network"`
	Addrs     []netip.Addr      `json:"addrs"`
	BytesIn   uint64            `json:"bytes_in"` // to the container
	BytesOut  uint64            `json:"bytes_out"`
	FramesIn  uint64            `json:"frames_in"` // super-frames count as one
	FramesOut uint64            `json:"frames_out"`
	Drops     map[string]uint64 `json:"drops"` // frames, by reason
}

// DNSQuestion is one that a container has asked, with the first addresses of the answer.
type DNSQuestion struct {
	Time      time.Time     `json:"time"`
	Container string        `json:"container"` // name; empty where it is gone
	Name      string        `json:"name"`      // in zone-file form
	Type      string        `json:"type"`
	Rcode     string        `json:"rcode"`
	Source    string        `json:"source"` // see DNSAnswer
	Duration  time.Duration `json:"duration"`
	Addrs     []netip.Addr  `json:"addrs"`
}

// Refusal is a destination, or a question for a name, that a container was refused.
type Refusal struct {
	Time        time.Time      `json:"time"`  // of the latest attempt
	Count       uint64         `json:"count"` // of attempts
	Container   string         `json:"container"`
	Network     string         `json:"network"`
	Proto       string         `json:"proto"` // tcp, udp, icmp; dns for a question
	Destination netip.AddrPort `json:"destination,omitzero"`
	Name        string         `json:"name,omitempty"` // that was asked for, or that had led to the destination
	Rule        string         `json:"rule"`           // that refused it
	Flag        string         `json:"flag"`           // of usernet run or network create, that would allow it
}

// ContainerPort is a published port and whose it is.
type ContainerPort struct {
	Container string `json:"container"`
	Published
}

func (s *Server) sampleRoutes() []route {
	return []route{
		on("GET", "/usernet/sample", "Counts of interfaces, flows, the latest DNS questions and refusals, and published ports at one time",
			func(*http.Request, none) (Sample, error) { return s.b.Sample(), nil }),
		on("DELETE", "/usernet/flows", "Close the flows between two ends; a TCP connection is reset at both",
			s.closeFlows,
			parameter{"proto", "string", "tcp, udp or icmp", true},
			parameter{"inside", "string", "the container's end", true},
			parameter{"outside", "string", "the peer's end; any where there is none", false}),
	}
}

func (s *Server) closeFlows(r *http.Request, _ none) (n none, err error) {
	q := r.URL.Query()
	inside, err := netip.ParseAddrPort(q.Get("inside"))
	if err != nil {
		return n, errdefs.Invalid("inside %q is no address and port", q.Get("inside"))
	}
	var outside netip.AddrPort
	if text := q.Get("outside"); text != "" {
		if outside, err = netip.ParseAddrPort(text); err != nil {
			return n, errdefs.Invalid("outside %q is no address and port", text)
		}
	}
	if s.b.CloseFlows(q.Get("proto"), inside, outside) == 0 {
		return n, errdefs.NotFound("there is no such flow (any more)")
	}
	return n, nil
}

// Sample is what happens on the networks now.
func (c *Client) Sample(ctx context.Context) (*Sample, error) {
	var s Sample
	if err := c.Do(ctx, "GET", "/usernet/sample", nil, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// CloseFlow closes a flow.
func (c *Client) CloseFlow(ctx context.Context, f Flow) error {
	q := url.Values{"proto": {f.Proto}, "inside": {f.Inside.String()}}
	if f.Outside.IsValid() {
		q.Set("outside", f.Outside.String())
	}
	return c.Do(ctx, "DELETE", withQuery("/usernet/flows", q), nil, nil)
}
