package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/usernet/usernet/internal/openmetrics"
)

// serveMetrics answers with the metrics in the format that the client wants.
func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) { writeMetrics(s.b, w, r) }

func writeMetrics(b Backend, w http.ResponseWriter, r *http.Request) {
	format := openmetrics.Accepted(r.Header.Get("Accept"))
	w.Header().Set("Content-Type", format.ContentType())
	_ = openmetrics.Write(w, b.Metrics(), format) // a client that is gone
}

// maxScrapers is how many connections a MetricsServer holds: who connects need not have the token, and each is one of
// the daemon's descriptors, which its containers' connections need too.
const maxScrapers = 16

// fewConnections closes those that begin while a server holds maxScrapers: it is to be its ConnState.
func fewConnections() func(net.Conn, http.ConnState) {
	var held atomic.Int64
	return func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			if held.Add(1) > maxScrapers {
				_ = c.Close() // the server notices at its first read
			}
		case http.StateClosed, http.StateHijacked:
			held.Add(-1)
		}
	}
}

// MetricsServer serves /metrics of b, and nothing else, to who has the token: Authorization: Bearer TOKEN. It is for a
// TCP listener, on which nobody's user is known. Its owner closes it.
func MetricsServer(b Backend, token string, log *slog.Logger) *http.Server {
	want := sha256.Sum256([]byte(token)) // of one length, so that comparing them tells nothing
	m := http.NewServeMux()
	m.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if got := sha256.Sum256([]byte(given)); !ok || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.Header().Set("Connection", "close")
			http.Error(w, "the token of --metrics-token-file is wanted", http.StatusUnauthorized)
			return
		}
		writeMetrics(b, w, r)
	})
	return &http.Server{
		Handler:           isolated(log, m),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnState:         fewConnections(),
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
