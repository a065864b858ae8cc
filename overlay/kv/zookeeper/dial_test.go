package zookeeper

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// TestFirstAnswerIsNotWaitedForLong has a server that accepts a connection and never answers.
func TestFirstAnswerIsNotWaitedForLong(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := &handshakeConn{Conn: ours, most: 10 * time.Millisecond}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the first answer: %v", err)
	}
	// All later ones may come as late as the library lets them.
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = theirs.Write([]byte{1}) }()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("a later answer: %v", err)
	}
}
