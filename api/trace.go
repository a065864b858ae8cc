package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
)

// Trace says what becomes of a container's packets to a destination, step by step, and what became of a real attempt.
type Trace struct {
	Container   string         `json:"container"` // name
	Destination string         `json:"destination"`
	Proto       string         `json:"proto"`   // tcp, udp, icmp
	Address     netip.AddrPort `json:"address"` // that the destination stands for; none where its name has none
	Steps       []TraceStep    `json:"steps"`
	Predicted   TraceOutcome   `json:"predicted"`
	Actual      *TraceOutcome  `json:"actual,omitempty"`  // of the attempt; none where none was made
	Agrees      string         `json:"agrees,omitempty"`  // whether the two agree: yes, no, or unclear
	Because     string         `json:"because,omitempty"` // why that is so
}

// TraceStep is one decision on the way.
type TraceStep struct {
	Stage  string `json:"stage"` // names, route, switch, gateway, policy, host, path, peer
	Text   string `json:"text"`
	Stops  bool   `json:"stops,omitempty"`  // the packet goes no further
	Remedy string `json:"remedy,omitempty"` // what would change it
}

// TraceOutcome is how it ends.
type TraceOutcome struct {
	Kind TraceKind     `json:"kind"`
	Text string        `json:"text"`
	Took time.Duration `json:"took,omitempty"`
}

// TraceKind is a way to end.
type TraceKind string

// The ways to end. A prediction never says reached or refused: that is the destination's to say.
const (
	TracePasses      TraceKind = "passes"      // usernet lets it through
	TraceReached     TraceKind = "reached"     // connected, or an answer came
	TraceRefused     TraceKind = "refused"     // nothing listens there
	TraceProhibited  TraceKind = "prohibited"  // by an egress policy
	TraceUnreachable TraceKind = "unreachable" // there is no way, and the container is told so
	TraceNoAnswer    TraceKind = "no-answer"
	TraceUnresolved  TraceKind = "unresolved" // the name has no address
	TraceFailed      TraceKind = "failed"     // the attempt could not be made
)

// TraceRequest asks for a Trace.
type TraceRequest struct {
	Container   string
	Destination string // address or name, and port; without one an echo request is sent
	UDP         bool
	DryRun      bool          // nothing is tried
	Timeout     time.Duration // for an answer; 0: 5 s
}

// MaxTraceTimeout bounds how long an attempt waits for an answer.
const MaxTraceTimeout = time.Minute

func (s *Server) traceRoutes() []route {
	return []route{
		on("POST", "/usernet/containers/{ref}/trace",
			"What becomes of a container's packets to a destination, and what became of a real attempt",
			func(r *http.Request, _ none) (Trace, error) {
				q := r.URL.Query()
				req := TraceRequest{Container: ref(r), Destination: q.Get("to"), UDP: boolParam(r, "udp"),
					DryRun: boolParam(r, "dry-run"), Timeout: 5 * time.Second}
				if text := q.Get("timeout"); text != "" {
					var err error
					req.Timeout, err = time.ParseDuration(text)
					if err != nil || req.Timeout <= 0 || req.Timeout > MaxTraceTimeout {
						return Trace{}, errdefs.Invalid("timeout %q: give a duration of %v or less, such as 5s", text,
							MaxTraceTimeout)
					}
				}
				return s.b.Trace(r.Context(), req)
			},
			parameter{"to", "string", "address or name, and port; without a port an echo request is sent", true},
			parameter{"udp", "boolean", "a datagram in the place of a connection", false},
			parameter{"dry-run", "boolean", "only say what would happen", false},
			parameter{"timeout", "string", "how long an answer is waited for; 5s where there is none", false}),
	}
}

// Trace says what becomes of a container's packets to a destination.
func (c *Client) Trace(ctx context.Context, q TraceRequest) (t Trace, err error) {
	v := url.Values{"to": {q.Destination}}
	if q.UDP {
		v.Set("udp", "1")
	}
	if q.DryRun {
		v.Set("dry-run", "1")
	}
	if q.Timeout != 0 {
		v.Set("timeout", q.Timeout.String())
	}
	err = c.Do(ctx, "POST", withQuery(path("/usernet/containers", q.Container, "trace"), v), nil, &t)
	return t, err
}
