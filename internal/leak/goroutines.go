package leak

import (
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// Running is a set of goroutines by the number that the runtime gives each, which it never gives again.
type Running map[string]bool

var header = regexp.MustCompile(`^goroutine (\d+) `)

// stacks returns the stacks of all goroutines by their numbers, without the caller's and the one that runs finalizers.
func stacks() map[string]string {
	text := make([]byte, 1<<20)
	for {
		n := runtime.Stack(text, true)
		if n < len(text) {
			text = text[:n]
			break
		}
		text = make([]byte, 2*len(text))
	}
	found := map[string]string{}
	for i, stack := range strings.Split(string(text), "\n\n") {
		m := header.FindStringSubmatch(stack)
		if i == 0 || m == nil || strings.Contains(stack, "runtime.runFinalizers") ||
			strings.Contains(stack, "runtime.runCleanups") {
			continue // the first is the caller
		}
		found[m[1]] = stack
	}
	return found
}

// Goroutines returns those that run.
func Goroutines() Running {
	running := Running{}
	for number := range stacks() {
		running[number] = true
	}
	return running
}

// New returns the stacks of goroutines that are not in the set, the caller left out.
func (r Running) New() []string {
	var found []string
	for number, stack := range stacks() {
		if !r[number] {
			found = append(found, stack)
		}
	}
	return found
}

// NoneLeft fails the test unless goroutines that are not in the set end before long.
func (r Running) NoneLeft(t testing.TB) {
	t.Helper()
	wait(t, r.New, "goroutines run that did not before")
}
