// Package isolate keeps a panic to what it happened in: a frame's port, a flow, a query.
//
// A daemon that carries the traffic of many containers must not end because of one frame that nobody thought of. What
// is done for one port, flow or query is therefore called by way of [Call], which turns a panic into an error:
//
//	err := isolate.Call(log, "switch port", func() error { return dev.Serve(port) })
//	if isolate.IsPanic(err) { ... } // unplug the port
//
// The panic is logged at error level with its stack, and counted for the whole process ([Count]). The caller ends what
// the call was about, since its state is not to be trusted any more: memory that several flows share must only be
// changed where a deferred function puts it right.
//
// It does not help against what the Go runtime ends a process for: concurrent map writes, a stack that is exhausted, no
// memory. Nor can it reach goroutines that a library starts itself.
package isolate

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
)

// panicError is a panic that was recovered.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// Unwrap returns the panic's value where it is an error, as those of the runtime are.
func (e *panicError) Unwrap() error {
	err, _ := e.value.(error)
	return err
}

// IsPanic says whether an error that Call returned was a panic.
func IsPanic(err error) bool {
	var p *panicError
	return errors.As(err, &p)
}

var count atomic.Uint64

// Count is how many panics were recovered in this process.
func Count() uint64 { return count.Load() }

// Call returns what f returns, or the panic that f ended with. what and args (slog's keys and values) say in the log
// what was being done; a nil log is slog's default one.
func Call(log *slog.Logger, what string, f func() error, args ...any) (err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		count.Add(1)
		if log == nil {
			log = slog.Default()
		}
		args = append([]any{"doing", what, "panic", fmt.Sprint(v), "stack", string(debug.Stack())}, args...)
		log.Error("a fault in usernet ended what it was doing, and nothing else; please report it", args...)
		err = &panicError{v}
	}()
	return f()
}

// Do is Call for what returns no error. It says whether f returned.
func Do(log *slog.Logger, what string, f func(), args ...any) bool {
	return Call(log, what, func() error { f(); return nil }, args...) == nil
}
