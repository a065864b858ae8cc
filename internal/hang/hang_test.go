package hang

import (
	"bufio"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestStop: a process that always has something to say says nothing once it has stopped, and goes on afterwards.
func TestStop(t *testing.T) {
	cmd := exec.Command("yes")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	r := bufio.NewReader(out)
	line := func() error {
		_, err := r.ReadString('\n')
		return err
	}
	if err := line(); err != nil {
		t.Fatal(err)
	}
	Stop(t, cmd.Process.Pid)
	ended := make(chan error)
	go func() {
		for { // what the pipe holds, and then what comes later
			if err := line(); err != nil {
				ended <- err
				return
			}
		}
	}()
	if !stopped(t, cmd.Process.Pid) {
		t.Error("it goes on by itself")
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); stopped(t, cmd.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not go on")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
}
