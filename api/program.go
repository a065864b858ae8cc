package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/sockio"
)

// The executable of sandboxes is a file in memory, of some megabytes, which the daemon has as well: with its
// descriptor, clients need no copy, and containers share its pages. A descriptor does not go through HTTP: the answer
// comes with one, and ends the connection.
const (
	programPath     = "/usernet/program"
	programUpgrade  = "usernet-program"
	programPatience = 5 * time.Second
)

// OnProgram has f asked for the executable of sandboxes, which stays f's. It is set before Serve.
func (s *Server) OnProgram(f func() (*os.File, error)) { s.program = f }

// serveProgram answers with the descriptor.
func (s *Server) serveProgram(w http.ResponseWriter, r *http.Request) {
	if s.program == nil || r.Header.Get("Upgrade") != programUpgrade {
		fail(w, errdefs.NotImplemented("this is for usernet's own commands"))
		return
	}
	s.passing.RLock()
	defer s.passing.RUnlock()
	f, err := s.program()
	if err != nil {
		fail(w, err)
		return
	}
	h, ok := w.(http.Hijacker)
	if !ok {
		fail(w, errdefs.NotImplemented("descriptors cannot be passed here"))
		return
	}
	c, _, err := h.Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer c.Close()
	if fc, is := c.(*fileConn); is {
		_ = fc.SetDeadline(time.Now().Add(programPatience)) // the few bytes fit into the socket
		answer := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + programUpgrade + "\r\n\r\n"
		_, _ = sockio.WriteRights(fc.UnixConn, []byte(answer), int(f.Fd())) // the client may be gone
	}
}

// Program returns the daemon's executable of sandboxes, which is the caller's. A daemon of another version may have
// none, or another one.
func (c *Client) Program(ctx context.Context) (*os.File, error) {
	f, err := c.askProgram(ctx)
	if err != nil {
		return nil, fmt.Errorf("the daemon's executable of sandboxes: %w", err)
	}
	return f, nil
}

func (c *Client) askProgram(ctx context.Context) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, programPatience)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn,
		"POST "+programPath+" HTTP/1.1\r\nHost: usernet\r\nConnection: Upgrade\r\nUpgrade: "+programUpgrade+"\r\n\r\n"); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	got, err := sockio.ReadRights(conn.(*net.UnixConn), buf, 1) // since it was dialled so
	if err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(buf[:got.N])), nil)
	if err == nil && (resp.StatusCode != http.StatusSwitchingProtocols || len(got.FDs) == 0) {
		err = errors.New(resp.Status)
	}
	if err != nil {
		sockio.Close(got.FDs)
		return nil, err
	}
	return os.NewFile(uintptr(got.FDs[0]), "usernet"), nil
}
