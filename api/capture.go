package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"time"
)

// CaptureRequest says which frames are wanted: those of a container's endpoints, of the endpoints on a network, or,
// with neither, of all.
type CaptureRequest struct {
	Container, Network string // name, id or prefix of one
	Filter             string // an expression of pcap-filter(7); "": all frames
	Snaplen            int    // bytes that are kept of each frame; 0: all
	Count              int64  // of frames after which the capture ends; 0: it does not
}

// Capture is one that runs.
type Capture struct {
	ID        string    `json:"id"`
	Container string    `json:"container"` // name; empty where it is not of one container
	Network   string    `json:"network"`   // the same of a network
	Filter    string    `json:"filter"`
	Since     time.Time `json:"since"`
	Endpoints int       `json:"endpoints"`
	Frames    uint64    `json:"frames"` // that the filter wanted
	Lost      uint64    `json:"lost"`   // those of them that its reader was too slow for
}

// CaptureStream is a capture that has begun.
type CaptureStream struct {
	ID string
	// Bypassing is how many TCP connections were there that bypass the interfaces and are not in the capture.
	Bypassing int
	// Run writes the capture until it is ended or ctx ends; flush is called where nothing more waits. It has to be
	// called.
	Run func(ctx context.Context, w io.Writer, flush func() error) error
}

// Headers of the answer that is a capture.
const (
	captureIDHeader        = "Usernet-Capture"
	captureBypassingHeader = "Usernet-Bypassing-Connections"
	captureType            = "application/x-pcapng"
)

func (s *Server) captureRoutes() []route {
	return []route{
		{
			method: "GET",
			path:   "/usernet/capture",
			summary: "Frames of endpoints as they pass, as pcapng, until the capture is ended or the client closes; the " +
				"header " + captureIDHeader + " has the capture's id",
			query: []parameter{
				{"container", "string", "only this container's endpoints", false},
				{"network", "string", "only endpoints on this network", false},
				{"filter", "string", "an expression of pcap-filter(7)", false},
				{"snaplen", "integer", "bytes that are kept of each frame; all where there is none", false},
				{"count", "integer", "of frames after which it ends", false},
			},
			in:     reflect.TypeFor[none](),
			out:    reflect.TypeFor[none](),
			stream: captureType,
			handle: s.streamCapture,
		},
		on("GET", "/usernet/captures", "The captures that run",
			func(*http.Request, none) ([]Capture, error) { return s.b.Captures(), nil }),
		on("DELETE", "/usernet/captures/{ref}", "End a capture: its reader is sent what waits, and the counts",
			func(r *http.Request, _ none) (none, error) { return none{}, s.b.EndCapture(ref(r)) }),
	}
}

func (s *Server) streamCapture(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	c, err := s.b.Capture(CaptureRequest{
		Container: q.Get("container"),
		Network:   q.Get("network"),
		Filter:    q.Get("filter"),
		Snaplen:   intParam(r, "snaplen", 0),
		Count:     int64(intParam(r, "count", 0)),
	})
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", captureType)
	w.Header().Set(captureIDHeader, c.ID)
	w.Header().Set(captureBypassingHeader, strconv.Itoa(c.Bypassing))
	if err := c.Run(r.Context(), w, http.NewResponseController(w).Flush); err != nil {
		panic(http.ErrAbortHandler) // without the last chunk: the client shall not take this for the end
	}
}

// CaptureReader is a capture's stream of pcapng. Its owner closes it.
type CaptureReader struct {
	io.ReadCloser
	ID        string
	Bypassing int // see CaptureStream
}

// Capture begins a capture. It ends with its reader's Close, or in order with EndCapture. Where the daemon ends first,
// reading fails.
func (c *Client) Capture(ctx context.Context, q CaptureRequest) (*CaptureReader, error) {
	v := url.Values{}
	for name, value := range map[string]string{"container": q.Container, "network": q.Network, "filter": q.Filter} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for name, value := range map[string]int64{"snaplen": int64(q.Snaplen), "count": q.Count} {
		if value != 0 {
			v.Set(name, strconv.FormatInt(value, 10))
		}
	}
	res, err := c.send(ctx, "GET", withQuery("/usernet/capture", v), nil)
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(res.Header.Get(captureBypassingHeader)) // 0 where an older daemon does not say
	return &CaptureReader{captureBody{res.Body, c, ctx}, res.Header.Get(captureIDHeader), n}, nil
}

// captureBody says ErrDaemonEnded where a stream breaks off.
type captureBody struct {
	io.ReadCloser
	c   *Client
	ctx context.Context
}

func (b captureBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = b.c.broken(b.ctx, err)
	}
	return n, err
}

// Captures are those that run.
func (c *Client) Captures(ctx context.Context) (list []Capture, err error) {
	err = c.Do(ctx, "GET", "/usernet/captures", nil, &list)
	return list, err
}

// EndCapture ends a capture; its reader gets what waits, the counts, and then the end.
func (c *Client) EndCapture(ctx context.Context, id string) error {
	return c.Do(ctx, "DELETE", path("/usernet/captures", id), nil, nil)
}
