package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// Bounds of flags that several commands have, or whose kernel or protocol has none.
const (
	aYear = 365 * 24 * time.Hour
	// mostLimit bounds how many connections of a kind may be allowed; 0 is no limit.
	mostLimit = math.MaxInt32
	// mostBytes bounds sizes, in bytes: 1 EiB.
	mostBytes = 1 << 60
	// maxSnaplen is the largest of libpcap and Wireshark (MAXIMUM_SNAPLEN in libpcap's pcap-int.h).
	maxSnaplen = 262144
	// maxPid is above all process ids (PID_MAX_LIMIT in the kernel's include/linux/threads.h).
	maxPid = 1 << 22
)

// bounded is a flag that takes only some values of its type.
type bounded struct {
	pflag.Value
	accepts func(string) bool
	what    string // is accepted, behind "give"
}

// Set refuses what is not accepted, and says what is.
func (b bounded) Set(s string) error {
	if !b.accepts(s) {
		return errors.New("give " + b.what)
	}
	return b.Value.Set(s)
}

// bound restricts a flag that is defined already.
func bound(f *pflag.FlagSet, name, what string, accepts func(string) bool) {
	flag := f.Lookup(name)
	flag.Value = bounded{flag.Value, accepts, what}
	if flag.DefValue == "0s" {
		flag.DefValue = "0" // so that help does not show it as a default (pflag's defaultIsZeroValue)
	}
}

// countBetween has a flag accept whole numbers between two, inclusive. also says what a number means, as "0: all".
func countBetween(f *pflag.FlagSet, name string, low, high int64, also string) {
	bound(f, name, withMeaning(fmt.Sprintf("a whole number from %d to %d", low, high), also), func(s string) bool {
		n, err := strconv.ParseInt(s, 0, 64)
		return err == nil && n >= low && n <= high
	})
}

// seconds has a flag accept whole numbers of seconds that Docker does: a negative one is no limit.
func seconds(f *pflag.FlagSet, name string) {
	countBetween(f, name, math.MinInt32, math.MaxInt32, "seconds, negative: without end")
}

// timeBetween has a flag accept durations between two, inclusive; where zero says what 0 means, 0 too.
func timeBetween(f *pflag.FlagSet, name string, low, high time.Duration, zero string) {
	what := fmt.Sprintf("a duration from %s to %s", plainDuration(low), plainDuration(high))
	if zero != "" {
		zero = "0: " + zero
	}
	bound(f, name, withMeaning(what, zero), func(s string) bool {
		d, err := time.ParseDuration(s)
		return err == nil && (d >= low && d <= high || d == 0 && zero != "")
	})
}

// sizeBetween has a flag accept numbers of bytes between two, inclusive. also says what a number means.
func sizeBetween(f *pflag.FlagSet, name string, low, high int64, also string) {
	what := fmt.Sprintf("a number of bytes from %s to %s, such as 512m or 1.5GiB", plainSize(low), plainSize(high))
	bound(f, name, withMeaning(what, also), func(s string) bool {
		n, err := units.RAMInBytes(s)
		return err == nil && n >= low && n <= high
	})
}

func withMeaning(what, also string) string {
	if also == "" {
		return what
	}
	return what + " (" + also + ")"
}

// plainDuration is a duration without parts that are 0: 1h in the place of 1h0m0s.
func plainDuration(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

func plainSize(n int64) string {
	if n == 0 {
		return "0"
	}
	return units.BytesSize(float64(n))
}
