package dashboard

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/usernet/usernet/api"
)

//go:embed page
var files embed.FS

const (
	cookieName = "usernet-dashboard"
	keyHeader  = "Usernet-Key"
	maxBody    = 16 << 10
	viewLimit  = 5 * time.Second  // of what the page shows, which it asks for every second
	callLimit  = 30 * time.Second // of what it has the daemon do
)

// policy lets the page load its own files, and nothing else. Trusted Types keep scripts from making markup of text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Server serves the page. Make it with New.
type Server struct {
	src      Source
	sessions *sessions
	view     *viewer
	conns    connections
	hosts    [2]string // that requests may be for: the address, and localhost with its port
}

// New makes a server that asks src.
func New(src Source) *Server {
	return &Server{src: src, sessions: newSessions(), view: &viewer{src: src}}
}

// Serve answers on l, which it closes, until ctx ends. The links that it makes, one at first and one more for each
// value from more, are given to show. l has to listen on a loopback address.
func (s *Server) Serve(ctx context.Context, l net.Listener, more <-chan struct{}, show func(link string)) error {
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	s.hosts = [2]string{l.Addr().String(), net.JoinHostPort("localhost", port)}
	server := &http.Server{
		Handler:           s.guard(s.routes()),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      callLimit + 10*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ConnContext:       s.conns.withConn,
		ConnState:         s.conns.changed,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // what strangers send is not told
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	link := func() { show("http://" + s.hosts[0] + "/#" + s.sessions.newLink()) }
	for link(); ; {
		select {
		case _, ok := <-more:
			if !ok {
				more = nil
				continue
			}
			link()
		case <-ctx.Done():
			_ = server.Close()
			<-ended
			return nil
		case err := <-ended:
			return err
		}
	}
}

// routes are all that is answered. Only the page and what it looks like is for who has no session.
func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", s.page)
	for _, name := range []string{"style.css", "icon.svg", "login.js"} {
		m.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) { sendFile(w, http.StatusOK, name) })
	}
	m.HandleFunc("POST /login", s.login)
	scripts, _ := fs.Glob(files, "page/*.js") // the pattern is good
	for _, script := range scripts {
		if name := path.Base(script); name != "login.js" {
			m.HandleFunc("GET /"+name, s.guest(func(w http.ResponseWriter, _ *http.Request) {
				sendFile(w, http.StatusOK, name)
			}))
		}
	}
	m.HandleFunc("GET /data", s.owner(s.data))
	for name, do := range s.operations() {
		m.HandleFunc("POST /do/"+name, s.owner(do))
	}
	return m
}

// guard refuses what does not come from the page itself, and gives each answer its headers.
func (s *Server) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", policy)
		head.Set("X-Frame-Options", "DENY")
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Opener-Policy", "same-origin")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Cache-Control", "no-store")
		if why := s.foreign(r); why != "" {
			refuse(w, http.StatusForbidden, why)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		h.ServeHTTP(w, r)
	})
}

// foreign says why a request is not the page's own; "": it is. A site may have a link to the page itself, which shows
// nothing to who has no session, and cannot be framed or read.
func (s *Server) foreign(r *http.Request) string {
	if r.Host != s.hosts[0] && r.Host != s.hosts[1] {
		return "this is not the address of the link"
	}
	origin := r.Header.Get("Origin")
	if origin != "" && origin != "http://"+r.Host || origin == "" && r.Method != http.MethodGet {
		return "requests of other sites are refused"
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return ""
	}
	if r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get("Sec-Fetch-Mode") == "navigate" {
		return ""
	}
	return "requests of other sites are refused"
}

// session says which secrets of a session a request has.
func (s *Server) session(r *http.Request) (guest, owner bool) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return false, false
	}
	guest, owner = s.sessions.knows(c.Value, r.Header.Get(keyHeader))
	if guest {
		s.conns.trust(r)
	}
	return guest, owner
}

const wantsLink = "open the link that usernet dashboard prints; a link is good once"

// guest lets requests with a session's cookie pass.
func (s *Server) guest(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if guest, _ := s.session(r); !guest {
			refuse(w, http.StatusUnauthorized, wantsLink)
			return
		}
		h(w, r)
	}
}

// owner lets requests with a session's cookie and key pass.
func (s *Server) owner(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, owner := s.session(r); !owner {
			refuse(w, http.StatusUnauthorized, wantsLink)
			return
		}
		h(w, r)
	}
}

// page is the page, or to who has no session yet the one that uses the link.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	if guest, _ := s.session(r); guest {
		sendFile(w, http.StatusOK, "index.html")
		return
	}
	sendFile(w, http.StatusUnauthorized, "login.html")
}

// login trades a link's secret for a session's.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Link string `json:"link"`
	}
	if !readBody(w, r, &body) {
		return
	}
	cookie, key, ok := s.sessions.login(body.Link)
	if !ok {
		refuse(w, http.StatusUnauthorized, "this link was used, or is too old: press Enter where usernet dashboard runs for another one")
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	sendJSON(w, http.StatusOK, map[string]string{"key": key})
}

func (s *Server) data(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), viewLimit)
	defer cancel()
	v, err := s.view.get(ctx)
	if err != nil {
		fail(w, err)
		return
	}
	sendJSON(w, http.StatusOK, v)
}

func sendFile(w http.ResponseWriter, status int, name string) {
	b, err := files.ReadFile("page/" + name)
	if err != nil {
		refuse(w, http.StatusNotFound, "there is no such file")
		return
	}
	w.Header().Set("Content-Type", types[path.Ext(name)])
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that is gone
}

// types are those of the page's files, whatever the machine's table of them says.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
	".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

func sendJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that is gone
}

func refuse(w http.ResponseWriter, status int, why string) {
	sendJSON(w, status, map[string]string{"message": why})
}

// fail answers with an error of the daemon, or of asking it.
func fail(w http.ResponseWriter, err error) {
	var e *api.Error
	switch {
	case errors.As(err, &e):
		refuse(w, e.Status, e.Msg)
	case errors.Is(err, api.ErrNoDaemon), errors.Is(err, api.ErrDaemonEnded):
		refuse(w, http.StatusServiceUnavailable, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		refuse(w, http.StatusGatewayTimeout, "the daemon does not answer: usernet doctor looks what is wrong")
	default:
		refuse(w, http.StatusBadRequest, err.Error())
	}
}

// readBody decodes a request's body, or refuses it and returns false.
func readBody(w http.ResponseWriter, r *http.Request, v any) bool {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "the body has to be application/json")
		return false
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is something behind the value")
		}
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "the body cannot be read: "+strings.TrimPrefix(err.Error(), "json: "))
		return false
	}
	return true
}
