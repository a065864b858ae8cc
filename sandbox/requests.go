package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// Requests between the daemon, its helper and the opener. Each is one message, with descriptors: first the socket at
// which its answer is awaited, then what belongs to it. So a request that takes long, or an answer that nobody reads,
// delays no other.

// requester is the asking end.
type requester struct {
	mu   sync.Mutex // one message at a time
	conn *net.UnixConn
}

// errNoHelper says what is wrong when the processes that enter sandboxes were ended.
var errNoHelper = errors.New("the process that enters sandboxes for the daemon has ended: start the daemon again")

// request sends body, and returns the socket of its answer, which the caller closes. files stay the caller's.
func (c *requester) request(body any, files ...*os.File) (*net.UnixConn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	fds := []int{int(theirs.Fd())}
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	c.mu.Lock()
	err = send(c.conn, body, fds)
	c.mu.Unlock()
	if err != nil {
		return nil, errors.Join(errNoHelper, err, ours.Close())
	}
	return ours, nil
}

// receive reads one message into r, and returns the descriptors that came with it.
func receive(c *net.UnixConn, r any) ([]*os.File, error) {
	buf := make([]byte, maxMessage)
	n, files, err := readFiles(c, buf)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w (%w)", errNoHelper, err)
	case n == 0:
		return nil, fmt.Errorf("%w (its end of the request was closed)", errNoHelper)
	}
	if err := json.Unmarshal(buf[:n], r); err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

// maxRequestFiles is how many descriptors a request has at most: its answer's socket, that of an agent, and a network
// namespace.
const maxRequestFiles = 3

// serveRequests calls serve with each request that comes over c, in a goroutine of its own, until the asking end is
// gone, and returns when all of them have. What serve gets is closed after it.
func serveRequests(c *net.UnixConn, serve func(body []byte, answer *net.UnixConn, files []*os.File)) error {
	var served sync.WaitGroup
	defer served.Wait()
	buf := make([]byte, maxMessage)
	for {
		n, files, err := readFiles(c, buf)
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if len(files) == 0 || len(files) > maxRequestFiles {
			fmt.Fprintf(os.Stderr, "a request came with %d descriptors\n", len(files))
			closeAll(files)
			continue // the requester sees the sockets closed
		}
		answer, err := connOf(files[0])
		if err != nil {
			fmt.Fprintln(os.Stderr, "a request without a socket for its answer:", err)
			closeAll(files)
			continue
		}
		body := append([]byte(nil), buf[:n]...)
		served.Go(func() {
			defer closeAll(files)
			defer answer.Close()
			serve(body, answer, files[1:])
		})
	}
}

// connOf is a copy of the unix socket f.
func connOf(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("not a unix socket"), c.Close())
	}
	return u, nil
}
