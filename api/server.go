package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/network"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 1 << 20

// Server answers API requests.
type Server struct {
	b    Backend
	log  *slog.Logger
	http *http.Server
}

type uidKey struct{}

// NewServer makes a server in front of b.
func NewServer(b Backend, log *slog.Logger) *Server {
	s := &Server{b: b, log: log}
	s.http = &http.Server{
		Handler: s.guard(withoutVersion(s.routes())), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, uidKey{}, peerUID(c))
		},
	}
	return s
}

// Serve answers on l until Close.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends all connections.
func (s *Server) Close() error { return s.http.Close() }

// peerUID is the user at the other end (unix(7), SO_PEERCRED), or -1.
func peerUID(c net.Conn) int {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return -1
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return -1
	}
	uid := -1
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = int(cred.Uid)
		}
	})
	return uid
}

// guard lets in only this user and root, bounds bodies, and keeps a panic in one request from ending the daemon.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("request failed", "path", r.URL.Path, "panic", p)
			}
		}()
		if uid, _ := r.Context().Value(uidKey{}).(int); uid != os.Geteuid() && uid != 0 {
			fail(w, network.Errorf(network.Forbidden, "this daemon belongs to another user"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /_ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-cache, no-store, must-revalidate")
		w.Header().Set("Pragma", "no-cache")
		_, _ = io.WriteString(w, "OK")
	})
	s.dockerRoutes(m)
	m.HandleFunc("GET /usernet/info", get(func(*http.Request) (any, error) { return s.b.Info(), nil }))
	m.HandleFunc("POST /usernet/shutdown", get(func(*http.Request) (any, error) { s.b.Shutdown(); return nil, nil }))
	m.HandleFunc("GET /usernet/networks", get(func(*http.Request) (any, error) { return s.b.Networks(), nil }))
	m.HandleFunc("GET /usernet/networks/{ref}", get(func(r *http.Request) (any, error) { return s.b.Network(r.PathValue("ref")) }))
	m.HandleFunc("GET /usernet/networks/{ref}/details", get(func(r *http.Request) (any, error) { return s.b.NetworkDetails(r.PathValue("ref")) }))
	m.HandleFunc("POST /usernet/networks", with(func(r *http.Request, spec network.NetworkSpec) (any, error) {
		n, _, err := s.b.CreateNetwork(r.Context(), spec)
		return n, err
	}))
	m.HandleFunc("DELETE /usernet/networks/{ref}", get(func(r *http.Request) (any, error) {
		return nil, s.b.RemoveNetwork(r.Context(), r.PathValue("ref"))
	}))
	m.HandleFunc("GET /usernet/containers", get(func(*http.Request) (any, error) { return s.b.Containers(), nil }))
	m.HandleFunc("GET /usernet/containers/{ref}", get(func(r *http.Request) (any, error) { return s.b.Container(r.PathValue("ref")) }))
	m.HandleFunc("POST /usernet/containers", with(func(r *http.Request, spec network.ContainerSpec) (any, error) {
		c, warnings, err := s.b.CreateContainer(r.Context(), spec)
		if err != nil {
			return nil, err
		}
		return Created{c, warnings, s.linkEnvironment(c)}, nil
	}))
	m.HandleFunc("POST /usernet/containers/{ref}/start", with(func(r *http.Request, p Started) (any, error) {
		return s.b.StartContainer(r.Context(), r.PathValue("ref"), p)
	}))
	m.HandleFunc("POST /usernet/containers/{ref}/exit", get(func(r *http.Request) (any, error) {
		code, err := strconv.Atoi(r.URL.Query().Get("code"))
		if err != nil {
			return nil, network.Errorf(network.Invalid, "code: a number is needed")
		}
		return nil, s.b.ContainerExited(r.Context(), r.PathValue("ref"), code)
	}))
	m.HandleFunc("POST /usernet/containers/{ref}/stop", get(func(r *http.Request) (any, error) {
		t, err := strconv.Atoi(r.URL.Query().Get("t"))
		if err != nil {
			t = 10
		}
		return nil, s.b.StopContainer(r.Context(), r.PathValue("ref"), r.URL.Query().Get("signal"), time.Duration(t)*time.Second)
	}))
	m.HandleFunc("POST /usernet/containers/{ref}/kill", get(func(r *http.Request) (any, error) {
		return nil, s.b.KillContainer(r.Context(), r.PathValue("ref"), r.URL.Query().Get("signal"))
	}))
	m.HandleFunc("POST /usernet/containers/{ref}/wait", get(func(r *http.Request) (any, error) {
		return s.b.WaitContainer(r.Context(), r.PathValue("ref"))
	}))
	m.HandleFunc("DELETE /usernet/containers/{ref}", get(func(r *http.Request) (any, error) {
		return nil, s.b.RemoveContainer(r.Context(), r.PathValue("ref"), r.URL.Query().Get("force") == "1")
	}))
	m.HandleFunc("GET /usernet/containers/{ref}/ports", get(func(r *http.Request) (any, error) { return s.b.Published(r.PathValue("ref")) }))
	m.HandleFunc("POST /usernet/containers/{ref}/ports", with(func(r *http.Request, p []network.PortBinding) (any, error) {
		return s.b.PublishPorts(r.Context(), r.PathValue("ref"), p)
	}))
	m.HandleFunc("DELETE /usernet/containers/{ref}/ports", with(func(r *http.Request, p []network.PortBinding) (any, error) {
		return nil, s.b.UnpublishPorts(r.Context(), r.PathValue("ref"), p)
	}))
	m.HandleFunc("POST /usernet/networks/{ref}/connect", with(func(r *http.Request, a Attachment) (any, error) {
		return nil, s.b.Connect(r.Context(), r.PathValue("ref"), a.Container, a.Endpoint)
	}))
	m.HandleFunc("POST /usernet/networks/{ref}/disconnect", with(func(r *http.Request, a Attachment) (any, error) {
		return nil, s.b.Disconnect(r.Context(), r.PathValue("ref"), a.Container, a.Force)
	}))
	m.HandleFunc("GET /usernet/containers/{ref}/log", get(func(r *http.Request) (any, error) { return s.b.LogPath(r.PathValue("ref")) }))
	m.HandleFunc("GET /usernet/flows", get(func(r *http.Request) (any, error) { return s.b.Flows(r.URL.Query().Get("container")) }))
	m.HandleFunc("/", unknown)
	return m
}

// unknown answers requests for what Docker has and usernet does not, and for what nobody has.
func unknown(w http.ResponseWriter, r *http.Request) {
	fail(w, network.Errorf(network.NotSupported, "usernet has no %s %s: it serves networks, and the containers it runs or has attached", r.Method, r.URL.Path))
}

// Created is the answer to a container's creation.
type Created struct {
	Container *network.Container
	Warnings  []string
	Env       []string // for its command: what links on the default bridge add
}

func (s *Server) linkEnvironment(c *network.Container) []string {
	var env []string
	for _, l := range c.Links {
		name, alias, _ := strings.Cut(l, ":")
		if t, err := s.b.Container(name); err == nil {
			env = append(env, network.LinkEnvironment(c.Name, alias, t)...)
		}
	}
	return env
}

// Attachment asks for an endpoint, or for its end.
type Attachment struct {
	Container string
	Endpoint  network.EndpointSpec
	Force     bool
}

func get(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		reply(w, v, err)
	}
}

func with[T any](f func(*http.Request, T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var t T
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&t); err != nil {
			fail(w, network.Errorf(network.Invalid, "invalid body: %w", err))
			return
		}
		v, err := f(r, t)
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

var statusOf = map[network.Kind]int{
	network.Invalid: http.StatusBadRequest, network.NotFound: http.StatusNotFound, network.Conflict: http.StatusConflict,
	network.Forbidden: http.StatusForbidden, network.Unavailable: http.StatusServiceUnavailable, network.NotSupported: http.StatusNotImplemented,
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var e *network.Error
	if errors.As(err, &e) && statusOf[e.Kind] != 0 {
		status = statusOf[e.Kind]
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": err.Error()})
}
