package main

import (
	"reflect"
	"testing"
)

func TestSummariesOfStrace(t *testing.T) {
	const text = `    calls syscall
--------- ----------------
       12 epoll_pwait
      345 splice
       12 close
--------- ----------------
      369 total
`
	want := []call{{"splice", 345}, {"close", 12}, {"epoll_pwait", 12}}
	if got := parseCalls(text); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
