package test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// attackDamagedStore damages the store of a daemon that has ended, in ways that made bbolt panic, and starts another
// one on it. It has to start or say which file is damaged and what to do; after that has been done, it has what it had.
func attackDamagedStore(t *testing.T) {
	d := startDaemon(t)
	for _, name := range []string{"first", "second", "third"} {
		d.ok("network", "create", name)
		d.ok("network", "create", name+"-gone")
		d.ok("network", "rm", name+"-gone")
	}
	d.stop(syscall.SIGTERM)
	d.start() // which finds the store sound
	d.stop(syscall.SIGTERM)
	path := filepath.Join(d.dir, "state", "usernet.db")
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	refused := 0
	for seed := range uint64(24) {
		r := rand.New(rand.NewPCG(seed, 18))
		b := bytes.Clone(sound)
		at := r.IntN(len(b)/page) * page
		switch seed % 4 {
		case 0: // "Page expected to be"
			copy(b[at:at+page], b[r.IntN(len(b)/page)*page:])
		case 1: // "page already freed", "invalid freelist"
			for range 300 {
				b[r.IntN(len(b))] = byte(r.Uint32())
			}
		case 2: // SIGBUS
			b = b[:at+1]
		case 3:
			b[at+r.IntN(40)] ^= 1 << r.IntN(8)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if text, ok := startsOrSays(t, d, path); !ok {
			refused++
			// What the error says to do: the first command puts the copy in the damaged file's place.
			command, _, _ := strings.Cut(text[strings.Index(text, "mv "):], ";")
			if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", command, err, out)
			}
			d.start()
			if list := d.ok("network", "ls", "--format", "{{.Name}}"); !strings.Contains(list, "first") ||
				!strings.Contains(list, "third") {
				t.Errorf("after %s the networks are:\n%s", command, list)
			}
			d.stop(syscall.SIGTERM)
		}
	}
	if refused < 6 {
		t.Errorf("only %d of the damaged stores were noticed", refused)
	}
	if err := os.WriteFile(path, sound, 0o600); err != nil {
		t.Fatal(err)
	}
}

// startsOrSays runs a daemon on what is at path until it answers or ends. Where it ends, text is what it said.
func startsOrSays(t *testing.T, d *daemon, path string) (text string, ok bool) {
	t.Helper()
	cmd := exec.Command(daemonProgram, "serve", "--socket", d.socket, "--state-dir", filepath.Dir(path))
	cmd.Env = d.environ()
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	eventually(t, func() error {
		select {
		case <-ended:
			return nil
		default:
		}
		r := d.try("network", "ls", "-q")
		if r.code != 0 {
			return errors.New("neither an answer nor an end: " + r.stderr)
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ok = true
		return nil
	})
	<-ended
	text = out.String()
	if strings.Contains(text, "panic") || strings.Contains(text, "fatal error") || strings.Contains(text, "SIG") {
		t.Fatalf("the daemon crashed:\n%s", text)
	}
	if !ok && (!strings.Contains(text, path) || !strings.Contains(text, "mv ") || strings.Count(text, "\n") > 3) {
		t.Fatalf("the daemon does not say in a few words what is damaged and what to do:\n%s", text)
	}
	return text, ok
}
