package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
)

// TestThePortOfTheDashboard leads to the topics about ports where it cannot be listened on.
func TestThePortOfTheDashboard(t *testing.T) {
	l, err := listenLoopback(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := listenLoopback(t.Context(), l.Addr().String()); topicOf(err) != errdefs.TopicPortTaken {
		t.Errorf("%v leads to the topic %s", err, topicOf(err))
	}
	for errno, want := range map[syscall.Errno]errdefs.Topic{
		syscall.EACCES: errdefs.TopicPortLow, syscall.EADDRNOTAVAIL: errdefs.TopicPortBind,
	} {
		err := fmt.Errorf("x: %w", &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", errno)})
		if topic := topicOfListen(err); topic != want {
			t.Errorf("%v leads to the topic %s, want %s", err, topic, want)
		}
	}
}
