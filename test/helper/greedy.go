package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// greedy opens as many connections as it gets, COUNT at most, reads nothing, prints "open" and how many, and keeps them
// until its standard input ends: ADDRESS COUNT.
func greedy(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: greedy ADDRESS COUNT")
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var conns []net.Conn
	var group sync.WaitGroup
	slots := make(chan struct{}, 256) // handshakes in flight
	for range count {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			c, err := net.DialTimeout("tcp", args[0], 3*time.Second)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, c)
		})
	}
	group.Wait()
	fmt.Println("open", len(conns))
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}
