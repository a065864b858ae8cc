package api

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/joblog"
	"github.com/usernet/usernet/network"
)

// Streams of Docker's multiplexed output: each part of it has a header of eight bytes, the stream, three zeros and the
// length in network order ("Attach to a container" in Docker's API).
const (
	streamStdout = 1
	streamStderr = 2
)

// logPoll is how often a followed log is looked at again.
const logPoll = 100 * time.Millisecond

// logQuery is what GET /containers/ID/logs asks for.
type logQuery struct {
	stdout, stderr, timestamps bool
	since, until               time.Time
}

func (s *Server) containerLogs(w http.ResponseWriter, r *http.Request) {
	q := logQuery{
		stdout:     boolParam(r, "stdout"),
		stderr:     boolParam(r, "stderr"),
		timestamps: boolParam(r, "timestamps"),
	}
	c, err := s.b.Container(ref(r))
	if err == nil {
		q.since, err = logTime(r, "since")
	}
	if err == nil {
		q.until, err = logTime(r, "until")
	}
	tail, wrong := joblog.ParseTail(r.URL.Query().Get("tail"))
	if err == nil && wrong != nil {
		err = errdefs.Invalid("%w", wrong)
	}
	if err == nil && !q.stdout && !q.stderr {
		err = errdefs.Invalid("Bad parameters: you must choose at least one stream")
	}
	var path string
	if err == nil {
		path, err = s.b.LogPath(c.ID)
	}
	if err != nil {
		fail(w, err)
		return
	}
	running := c.InLife() // before the log is read: what was written before its end is then in the log
	log, err := joblog.Open(path, tail)
	if err != nil {
		fail(w, errdefs.Invalid("%w", err))
		return
	}
	defer log.Close()
	out := logWriter{w: w, logQuery: q, raw: c.TTY}
	kind := "application/vnd.docker.multiplexed-stream"
	if c.TTY || before(r, "1.42") {
		kind = "application/vnd.docker.raw-stream"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	for {
		if log.Each(out.write) != nil || !running || !boolParam(r, "follow") {
			return
		}
		_ = http.NewResponseController(w).Flush() // a client that is gone is noticed by the request's context
		if running = s.logGrows(r.Context(), c.ID); r.Context().Err() != nil {
			return
		}
	}
}

// logTime reads a time that a log begins or ends at; Docker's clients send 0 for none.
func logTime(r *http.Request, name string) (time.Time, error) {
	v := r.URL.Query().Get(name)
	if v == "0" {
		return time.Time{}, nil
	}
	return parseTime(v)
}

// logGrows waits a moment, and says whether the container may write more.
func (s *Server) logGrows(ctx context.Context, id string) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(logPoll):
	}
	c, err := s.b.Container(id)
	return err == nil && c.Status != network.Exited
}

// logWriter writes a line of a log as Docker's clients take them.
type logWriter struct {
	logQuery
	w   io.Writer
	raw bool // a terminal's output has no headers
}

// logTimeForm is RFC 3339 with all nine digits, as Docker has it in logs.
const logTimeForm = "2006-01-02T15:04:05.000000000Z07:00"

func (l *logWriter) write(line joblog.Line) error {
	stream, wanted := byte(streamStdout), l.stdout
	if line.Stream == "stderr" {
		stream, wanted = streamStderr, l.stderr
	}
	if !wanted || line.Time.Before(l.since) || !l.until.IsZero() && line.Time.After(l.until) {
		return nil
	}
	text := line.Log
	if l.timestamps {
		text = line.Time.UTC().Format(logTimeForm) + " " + text
	}
	part := []byte(text)
	if !l.raw {
		header := binary.BigEndian.AppendUint32([]byte{stream, 0, 0, 0}, uint32(len(text)))
		part = append(header, text...)
	}
	_, err := l.w.Write(part)
	return err
}
