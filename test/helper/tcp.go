package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tcpServe: ADDR MODE. It prints "listening" and serves for ever. MODE is echo, addr (tells the client
// its own address), or digest (reads to the end, then answers with the count and the SHA-256).
func tcpServe(args []string) error {
	l, err := net.Listen("tcp", arg(args, 0, ":7"))
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go serveOne(c.(*net.TCPConn), arg(args, 1, "echo"))
	}
}

func serveOne(c *net.TCPConn, mode string) {
	defer c.Close()
	switch mode {
	case "addr":
		fmt.Fprintln(c, c.RemoteAddr())
	case "digest":
		sum := sha256.New()
		n, err := io.Copy(sum, c)
		if err == nil {
			fmt.Fprintf(c, "%d %x\n", n, sum.Sum(nil))
		}
	default:
		// Not as *net.TCPConn: splice(2) would take two more descriptors for each connection.
		io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	}
}

// dialer dials as args say: multipath, port=PORT, device=NAME, minttl=TTL.
func dialer(args []string) (*net.Dialer, error) {
	d := new(net.Dialer)
	device, minTTL := "", 0
	for _, how := range args {
		name, value, _ := strings.Cut(how, "=")
		switch name {
		case "multipath":
			d.SetMultipathTCP(true)
		case "port":
			port, err := strconv.Atoi(value)
			if err != nil {
				return nil, err
			}
			d.LocalAddr = &net.TCPAddr{Port: port}
		case "device":
			device = value
		case "minttl": // what comes with less is dropped (ip(7), RFC 5082)
			n, err := strconv.Atoi(value)
			if err != nil {
				return nil, err
			}
			minTTL = n
		default:
			return nil, fmt.Errorf("unknown way to dial %q", how)
		}
	}
	d.Control = func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			if err == nil && device != "" {
				err = unix.BindToDevice(int(fd), device)
			}
			if err == nil && minTTL > 0 {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MINTTL, minTTL)
			}
		}), err)
	}
	return d, nil
}

// tcpDial: ADDR [TIMEOUT] [HOW...]. It prints "ok" and what the server says until it closes, or the name of
// the error number, and how long it took. HOW is what dialer knows.
func tcpDial(args []string) error {
	d, err := dialer(args[min(len(args), 2):])
	if err != nil {
		return err
	}
	timeout, err := time.ParseDuration(arg(args, 1, "10s"))
	if err != nil {
		return err
	}
	start := time.Now()
	d.Timeout = timeout
	c, err := d.Dial("tcp", args[0])
	if err != nil {
		fmt.Println(errorName(err), time.Since(start).Round(time.Millisecond))
		return nil
	}
	defer c.Close()
	fmt.Println("ok", c.LocalAddr())
	c.(*net.TCPConn).CloseWrite()
	c.SetReadDeadline(time.Now().Add(timeout))
	if _, err := io.Copy(os.Stdout, c); err != nil {
		fmt.Println(errorName(err))
	}
	return nil
}

// errorName is the errno's name, or "timeout".
func errorName(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return unix.ErrnoName(no)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "timeout"
	}
	return err.Error()
}

// tcpSend: ADDR BYTES. It sends pseudo-random bytes in pieces of random size, closes its half, and
// compares the digest that the server then answers with its own. With "stdin" instead of a number it prints
// "ok" and sends until a line comes on standard input.
func tcpSend(args []string) error {
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	total, stop := int64(math.MaxInt64), new(atomic.Bool)
	if args[1] == "stdin" {
		fmt.Println("ok")
		stop = lineOnStdin()
	} else if total, err = strconv.ParseInt(args[1], 10, 64); err != nil {
		return err
	}
	var seed [32]byte
	random := rand.NewChaCha8(seed)
	sum := sha256.New()
	piece := make([]byte, 256<<10)
	left := total
	for left > 0 && !stop.Load() {
		n := min(left, 1+rand.Int64N(int64(len(piece))))
		random.Read(piece[:n])
		sum.Write(piece[:n])
		if _, err := c.Write(piece[:n]); err != nil {
			return fmt.Errorf("after %d bytes: %w", total-left, err)
		}
		left -= n
	}
	total -= left
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("reading the answer after closing our half: %w", err)
	}
	if want := fmt.Sprintf("%d %x\n", total, sum.Sum(nil)); string(answer) != want {
		return fmt.Errorf("the server got %q, sent was %q", answer, want)
	}
	fmt.Println("same", total)
	return nil
}

// tcpMany: ADDR COUNT. It opens COUNT connections, all at once open, sends a line of its own over each
// and wants it echoed, then waits for a line on standard input before it closes them.
func tcpMany(args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	conns := make([]net.Conn, count)
	errs := make([]error, count)
	each := func(work func(i int) error) error {
		var group sync.WaitGroup
		slots := make(chan struct{}, 500) // handshakes in flight
		for i := range count {
			group.Add(1)
			slots <- struct{}{}
			go func() {
				defer group.Done()
				errs[i] = work(i)
				<-slots
			}()
		}
		group.Wait()
		return errors.Join(errs...)
	}
	err = each(func(i int) (err error) {
		conns[i], err = net.DialTimeout("tcp", args[0], time.Minute)
		return err
	})
	if err != nil {
		return fmt.Errorf("dialling: %w", first(err))
	}
	fmt.Println("open", count)
	err = each(func(i int) error {
		line := fmt.Sprintf("connection %d\n", i)
		conns[i].SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(conns[i], line); err != nil {
			return err
		}
		got := make([]byte, len(line))
		if _, err := io.ReadFull(conns[i], got); err != nil {
			return err
		}
		if string(got) != line {
			return fmt.Errorf("connection %d got %q", i, got)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("talking: %w", first(err))
	}
	fmt.Println("echoed", count)
	if arg(args, 2, "") == "wait" {
		os.Stdin.Read(make([]byte, 1))
	}
	return each(func(i int) error { return conns[i].Close() })
}

// first keeps the report of thousands of failures short.
func first(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all := joined.Unwrap()
		return fmt.Errorf("%d failed, the first: %w", len(all), all[0])
	}
	return err
}

// tcpHold: ADDR [MODE] [HOW...]. It connects, prints "ok", sends each line of standard input, and prints what comes
// back until the other side ends; then how: "EOF", or the name of the error number. With MODE "stdin" it
// ends with its standard input.
func tcpHold(args []string) error {
	d, err := dialer(args[min(len(args), 2):])
	if err != nil {
		return err
	}
	c, err := d.Dial("tcp", args[0])
	if err != nil {
		fmt.Println(errorName(err))
		return nil
	}
	defer c.Close()
	fmt.Println("ok")
	go func() {
		io.Copy(c, os.Stdin)
		if arg(args, 1, "") == "stdin" {
			os.Exit(0)
		}
	}()
	if _, err := io.Copy(os.Stdout, c); err != nil {
		fmt.Println(errorName(err))
		return nil
	}
	fmt.Println("EOF")
	return nil
}

// tcpStall: MODE ADDR [HOW...]. It connects, or with a MODE that begins with "serve-" takes one connection, and prints
// "ok". A MODE that ends in "send" then sends until nothing more is taken for a second, and prints "stalled"; with
// "receive" it reads nothing. A line on standard input has it reset the connection; it ends with its standard input.
func tcpStall(args []string) error {
	mode, serve := strings.CutPrefix(args[0], "serve-")
	var c net.Conn
	d, err := dialer(args[2:])
	if err == nil && serve {
		var l net.Listener
		if l, err = net.Listen("tcp", args[1]); err == nil {
			fmt.Println("listening")
			c, err = l.Accept()
		}
	} else if err == nil {
		c, err = d.Dial("tcp", args[1])
	}
	if err != nil {
		return err
	}
	fmt.Println("ok")
	if mode == "send" {
		for piece := make([]byte, 64<<10); ; {
			c.SetWriteDeadline(time.Now().Add(time.Second))
			if n, err := c.Write(piece); n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
		}
		fmt.Println("stalled")
	}
	in := make([]byte, 1)
	if n, _ := os.Stdin.Read(in); n > 0 {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		fmt.Println("reset")
	}
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// tcpGap: ADDR. It prints "ok", sends bytes one at a time, each when the last has come back, until a line comes on
// standard input; then how many, the longest that one took, and how many segments were sent again.
func tcpGap(args []string) error {
	conn, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	c := conn.(*net.TCPConn)
	fmt.Println("ok")
	stop := lineOnStdin()
	b, count, longest := make([]byte, 1), 0, time.Duration(0)
	for ; !stop.Load(); count++ {
		start := time.Now()
		if _, err := c.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		longest = max(longest, time.Since(start))
		time.Sleep(time.Millisecond) // leaves the machine to what is measured
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil {
		return err
	}
	fmt.Printf("count %d longest %v again %d\n", count, longest.Round(time.Millisecond), info.Total_retrans)
	return nil
}

// lineOnStdin is true once there was a line on standard input, or its end.
func lineOnStdin() *atomic.Bool {
	var was atomic.Bool
	go func() {
		os.Stdin.Read(make([]byte, 1))
		was.Store(true)
	}()
	return &was
}

// tcpRequests: ADDR SECONDS. It has single bytes echoed over one connection, and prints how many there were in a
// second.
func tcpRequests(args []string) error {
	seconds, err := strconv.Atoi(arg(args, 1, "1"))
	if err != nil {
		return err
	}
	c, err := net.DialTimeout("tcp", args[0], 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	n, b, start := 0, make([]byte, 1), time.Now()
	for ; time.Since(start) < time.Duration(seconds)*time.Second; n++ {
		if _, err := c.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
	}
	fmt.Printf("%.0f\n", float64(n)/time.Since(start).Seconds())
	return nil
}
