package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/handover"
	"github.com/usernet/usernet/internal/isolate"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 1 << 20

// Server answers API requests.
type Server struct {
	b        Backend
	http     *http.Server
	handover func(*handover.Peer) // nil: not possible
	program  func() (*os.File, error)
	passing  sync.RWMutex // read-locked while the program is passed on, on a connection that http has given away

	checkPeer func(pid int) error // nil: each process of this user may ask
	asked     func()              // nil: nothing
}

// NewServer makes a server in front of b.
func NewServer(b Backend, log *slog.Logger) *Server {
	s := &Server{b: b}
	s.http = &http.Server{
		Handler:           isolated(log, s.guard(withoutVersion(s.routes()))),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext:       s.withPeer,
	}
	return s
}

// OnAsked has f called with each request of this user or root before it is answered, also with those that are refused
// since the process that has asked is gone. It is set before Serve.
func (s *Server) OnAsked(f func()) { s.asked = f }

// isolated answers a request whose handling ends in a panic with an error, and logs it. The panic by which a handler
// breaks off its answer, http.ErrAbortHandler, goes on to net/http, which closes the connection.
func isolated(log *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		aborted := false
		serve := func() {
			defer func() {
				switch p := recover(); p {
				case nil:
				case http.ErrAbortHandler:
					aborted = true
				default:
					panic(p)
				}
			}()
			h.ServeHTTP(w, r)
		}
		if !isolate.Do(log, "answering a request", serve, "method", r.Method, "path", r.URL.Path) {
			w.WriteHeader(http.StatusInternalServerError) // of no effect where an answer has begun
		}
		if aborted {
			panic(http.ErrAbortHandler)
		}
	})
}

// Serve answers on l until Close.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(fileListener{l}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends all connections. Afterwards nothing uses the file that OnProgram's function gave.
func (s *Server) Close() error {
	err := s.http.Close()
	s.passing.Lock()
	defer s.passing.Unlock() // locked to wait, not to hold
	return err
}

// crossOrigin refuses what a browser sends for a page from elsewhere, by the headers Sec-Fetch-Site and Origin. The
// socket may be reachable by one where the user has put a proxy before it.
var crossOrigin = http.NewCrossOriginProtection()

// guard lets in only this user and root, and no process that CheckPeers refuses; it refuses web pages, and bounds
// bodies.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.asked != nil && isUser(r.Context()) == nil {
			s.asked()
		}
		check := mayAsk
		if r.URL.Path == programPath {
			check = isUser // each container has that file already
		}
		if err := check(r.Context()); err != nil {
			fail(w, err)
			return
		}
		if err := crossOrigin.Check(r); err != nil {
			fail(w, errdefs.Forbidden("request of a web page: %w", err))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /_ping", checkQuery(nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-cache, no-store, must-revalidate")
		w.Header().Set("Pragma", "no-cache")
		_, _ = io.WriteString(w, "OK")
	}))
	m.HandleFunc("GET /metrics", checkQuery(nil, s.serveMetrics))
	for _, r := range s.dockerRoutes() {
		m.HandleFunc(r.pattern, checkQuery(r.query, checkFilters(r.filters, r.handle)))
	}
	for _, r := range s.usernetRoutes() {
		m.HandleFunc(r.method+" "+r.path, checkQuery(r.query, r.handle))
	}
	m.HandleFunc("POST "+handover.Path, s.serveHandover) // which is no HTTP any more
	m.HandleFunc("POST "+programPath, s.serveProgram)
	m.HandleFunc("/", unknown)
	return m
}

// OnHandover has f called with each daemon that wants to take this one's place. It is set before Serve.
func (s *Server) OnHandover(f func(*handover.Peer)) { s.handover = f }

// serveHandover gives the connection to the function of OnHandover.
func (s *Server) serveHandover(w http.ResponseWriter, r *http.Request) {
	if s.handover == nil {
		fail(w, errdefs.NotImplemented("this daemon does not hand over"))
		return
	}
	p, err := handover.Serve(w, r)
	switch {
	case errors.Is(err, http.ErrAbortHandler):
		panic(http.ErrAbortHandler)
	case err != nil:
		fail(w, errdefs.NotImplemented("%w", err))
	default:
		s.handover(p)
	}
}

// unknown answers requests that usernet does not know: those for other parts of Docker's API, and all others.
func unknown(w http.ResponseWriter, r *http.Request) {
	fail(
		w,
		errdefs.NotImplemented("usernet has no %s %s: it serves networks, and the containers it runs or has attached",
			r.Method, r.URL.Path),
	)
}

func get(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		reply(w, v, err)
	}
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// statusOf are the HTTP statuses of the classes of errors, as Docker has them; 500 for all others.
var statusOf = map[error]int{
	errdefs.ErrInvalid:        http.StatusBadRequest,
	errdefs.ErrForbidden:      http.StatusForbidden,
	errdefs.ErrNotFound:       http.StatusNotFound,
	errdefs.ErrConflict:       http.StatusConflict,
	errdefs.ErrNotImplemented: http.StatusNotImplemented,
	errdefs.ErrUnavailable:    http.StatusServiceUnavailable,
}

// topicHeader has the topic of an error: the anchor of its section in docs/troubleshooting.md.
const topicHeader = "Usernet-Topic"

func fail(w http.ResponseWriter, err error) {
	status := cmp.Or(statusOf[errdefs.Class(err)], http.StatusInternalServerError)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(topicHeader, string(errdefs.TopicOf(err)))
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": err.Error()})
}
