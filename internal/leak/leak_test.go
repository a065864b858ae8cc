package leak

import (
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// forget leaves open files to their finalizers.
func forget(t *testing.T, n int) {
	t.Helper()
	for range n {
		if _, err := os.Open(os.DevNull); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFinalizersDoNotCount looks for descriptors and goroutines while finalizers close those of others.
func TestFinalizersDoNotCount(t *testing.T) {
	for range 20 {
		forget(t, 50)
		stop, stopped := make(chan struct{}), make(chan struct{})
		goroutines := Goroutines()
		before := Descriptors(t)
		go func() {
			defer close(stopped)
			for {
				runtime.GC()
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		files := Files(t, int(r.Fd()), int(w.Fd()))
		if found := before.New(t); len(found) != 2 || found[0] != files[0] && found[1] != files[0] {
			t.Fatalf("%v are new, %v were opened", found, files)
		}
		_, _ = r.Close(), w.Close()
		Closed(t, files...)
		before.NoneLeft(t)
		close(stop)
		<-stopped
		goroutines.NoneLeft(t)
	}
}

// TestLateOnesAreWaitedFor has descriptors and goroutines end while the test waits for them.
func TestLateOnesAreWaitedFor(t *testing.T) {
	goroutines, before := Goroutines(), Descriptors(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	looked := make(chan struct{})
	go func() {
		<-looked
		_, _ = r.Close(), w.Close()
	}()
	if found := goroutines.New(); len(found) != 1 || !strings.Contains(found[0], "TestLateOnesAreWaitedFor") {
		t.Errorf("goroutines: %v", found)
	}
	if found := before.New(t); len(found) != 2 {
		t.Errorf("descriptors: %v", found)
	}
	close(looked)
	before.NoneLeft(t)
	goroutines.NoneLeft(t)
}

// TestANumberThatIsUsedAgainIsNew closes one descriptor, and opens something else with its number.
func TestANumberThatIsUsedAgainIsNew(t *testing.T) {
	var l net.Listener
	for range 100 { // others may take the number
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		file := Files(t, int(r.Fd()))[0]
		before := Descriptors(t)
		_, _ = r.Close(), w.Close()
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		Closed(t, file)
		found := before.New(t)
		if len(found) != 1 {
			t.Fatalf("%v are new, for one listener", found)
		}
		if found[0].FD == file.FD {
			return
		}
	}
	t.Error("no number was used again")
}

// TestWhoWaitsIsNotNew: each test has a goroutine of its own.
func TestWhoWaitsIsNotNew(t *testing.T) {
	before := Goroutines()
	t.Run("", func(t *testing.T) {
		for _, stack := range before.New() {
			if strings.Contains(stack, "TestWhoWaitsIsNotNew.func1(") {
				t.Error(stack)
			}
		}
	})
	var group sync.WaitGroup
	done := make(chan struct{})
	for range 2000 { // more stacks than the first buffer takes
		group.Go(func() { <-done })
	}
	if n := len(before.New()); n != 2000 {
		t.Errorf("%d goroutines are new of 2000", n)
	}
	close(done)
	group.Wait()
	before.NoneLeft(t)
}
