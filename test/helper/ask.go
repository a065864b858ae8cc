package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// ask sends a text to a server and prints what comes back at first: NETWORK ADDRESS TEXT TIMEOUT. Without an answer in
// time, or with an error in its place, it prints nothing.
func ask(args []string) error {
	if len(args) < 4 {
		return errors.New("usage: ask NETWORK ADDRESS TEXT TIMEOUT")
	}
	timeout, err := time.ParseDuration(args[3])
	if err != nil {
		return err
	}
	c, err := net.DialTimeout(args[0], args[1], timeout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return nil
	}
	defer c.Close()
	if args[0] == "udp" { // a datagram may be lost on the way
		stop := make(chan struct{})
		defer close(stop)
		go resend(c, []byte(args[2]), stop)
	}
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := c.Write([]byte(args[2])); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return nil
	}
	buf := make([]byte, 64<<10)
	n, err := c.Read(buf)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return nil
	}
	fmt.Printf("%s\n", buf[:n])
	return nil
}

// resend sends a datagram again every few seconds.
func resend(c net.Conn, text []byte, stop <-chan struct{}) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			_, _ = c.Write(text) // an error is what the reader gets, too
		}
	}
}
