package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/usernet/usernet/network"
)

// filled makes a database with records of all sizes, of which some were changed and removed.
func filled(t testing.TB, seed uint64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "usernet.db")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	d.bolt.NoSync = true
	r := rand.New(rand.NewPCG(seed, 1))
	for range 1 + r.IntN(20) {
		change(t, d, r)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// change puts and removes records in one transaction.
func change(t testing.TB, d *DB, r *rand.Rand) {
	t.Helper()
	_, err := d.Update(t.Context(), func(tx network.Tx) error {
		for _, name := range []network.Bucket{"networks", "containers", "meta"} {
			for range r.IntN(30) {
				var err error
				if key := fmt.Sprintf("%064x", r.IntN(100)); r.IntN(3) == 0 {
					err = tx.Delete(name, key)
				} else {
					err = tx.Put(name, key, bytes.Repeat([]byte{'x'}, r.IntN(1<<r.IntN(15))))
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, network.ErrDamaged) && !errors.Is(err, bolterrors.ErrIncompatibleValue) {
		t.Fatal(err)
	}
}

func TestSoundFilesAreOpenedAndCopied(t *testing.T) {
	for seed := range uint64(30) {
		path := filled(t, seed)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.SaveCopy(); err != nil {
			t.Fatal(err)
		}
		copied, err := os.ReadFile(GoodCopy(path))
		if err != nil || !bytes.Equal(before, copied) {
			t.Fatalf("the copy differs from what was opened: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The kinds of damage.
var damages = []struct {
	name string
	do   func(*rand.Rand, []byte) []byte
}{
	{"a bit", func(r *rand.Rand, b []byte) []byte {
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		return b
	}},
	{"bytes", func(r *rand.Rand, b []byte) []byte {
		for range 1 + r.IntN(200) {
			b[r.IntN(len(b))] = byte(r.Uint32())
		}
		return b
	}},
	{"a number in a page's header", func(r *rand.Rand, b []byte) []byte {
		at := r.IntN(len(b)/os.Getpagesize())*os.Getpagesize() + r.IntN(40)
		b[at] = byte(r.Uint32())
		return b
	}},
	{"a page of zeros", func(r *rand.Rand, b []byte) []byte {
		clear(page(r, b))
		return b
	}},
	{"a page twice", func(r *rand.Rand, b []byte) []byte {
		copy(page(r, b), page(r, b))
		return b
	}},
	{"a page of another with the right number", func(r *rand.Rand, b []byte) []byte {
		to := page(r, b)
		number := bytes.Clone(to[:8])
		copy(to, page(r, b))
		copy(to, number)
		return b
	}},
	{"its end gone", func(r *rand.Rand, b []byte) []byte { return b[:r.IntN(len(b))] }},
	{"other text", func(r *rand.Rand, b []byte) []byte { return []byte("no database\n") }},
}

func page(r *rand.Rand, b []byte) []byte {
	size := os.Getpagesize()
	return b[r.IntN(len(b)/size)*size:][:size]
}

// TestDamageIsAnError damages files in all ways, opens them and goes on to use those that open. Nothing may panic, go
// round in circles or be refused without a word about the way out.
func TestDamageIsAnError(t *testing.T) {
	rounds := uint64(40)
	if testing.Short() {
		rounds = 5
	}
	var sound [5][]byte // made once: a new file waits for the disk
	for seed := range sound {
		b, err := os.ReadFile(filled(t, uint64(seed)))
		if err != nil {
			t.Fatal(err)
		}
		sound[seed] = b
	}
	path := filepath.Join(t.TempDir(), "usernet.db")
	for _, damage := range damages {
		refused, opened := 0, 0
		for seed := range rounds {
			r := rand.New(rand.NewPCG(seed, 2))
			b := bytes.Clone(sound[seed%uint64(len(sound))])
			if err := os.WriteFile(path, damage.do(r, b), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := Open(path)
			if err != nil {
				refused++
				checkAdvice(t, path, err)
				continue
			}
			opened++
			d.bolt.NoSync = true
			for range 10 {
				change(t, d, r)
			}
			if err := d.Close(); err != nil {
				t.Errorf("%s, %d: close: %v", damage.name, seed, err)
			}
		}
		t.Logf("%s: %d refused, %d opened and used", damage.name, refused, opened)
		if refused == 0 && damage.name != "a bit" { // which may be in a record's text, for the model to notice
			t.Errorf("%s was never noticed", damage.name)
		}
	}
}

// checkAdvice holds the error to what it promises: it names the file, and its first command makes Open work again.
func checkAdvice(t *testing.T, path string, err error) {
	t.Helper()
	text := err.Error()
	if !errors.Is(err, network.ErrDamaged) || !strings.Contains(text, path) {
		t.Fatalf("the error does not name the file: %v", err)
	}
	at := strings.Index(text, "mv ")
	if at < 0 {
		t.Fatalf("the error says no way out: %v", err)
	}
	command, _, _ := strings.Cut(text[at:], ";")
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	d, err := Open(path)
	if err != nil {
		t.Fatalf("after %s: %v", command, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestGoodCopyIsOffered(t *testing.T) {
	path := filled(t, 1)
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.SaveCopy(), d.Close()); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spoil(t, path)
	_, err = Open(path)
	if err == nil || !strings.Contains(err.Error(), GoodCopy(path)) {
		t.Fatalf("the copy is not offered: %v", err)
	}
	checkAdvice(t, path, err)
	if got, err := os.ReadFile(GoodCopy(path)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what was gone on with is not what there was: %v", err)
	}
	spoil(t, path)
	spoil(t, GoodCopy(path))
	if _, err = Open(path); err == nil || strings.Contains(err.Error(), GoodCopy(path)) {
		t.Errorf("a spoilt copy is offered: %v", err)
	}
}

func spoil(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("spoilt"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFileThatShrinksUnderIt truncates the file of an open database, so that bbolt's memory is no longer there.
func TestFileThatShrinksUnderIt(t *testing.T) {
	path := filled(t, 3)
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	read := func(tx network.Tx) error {
		return tx.All("networks", func(_ string, v []byte) error {
			if len(v) > 0 && v[0] == 0 {
				return errors.New("zero")
			}
			return nil
		})
	}
	for range 2 { // the second one must not wait for a lock that the first has left
		if err := d.View(t.Context(), read); !errors.Is(err, network.ErrDamaged) {
			t.Errorf("reading what is gone: %v", err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if d, err = Open(path); err != nil {
		t.Fatalf("the lock outlives Close: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	path := filled(t, 2)
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, network.ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("opened twice: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(path); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// FuzzCheck gives the checker any file. What it finds sound bbolt must be able to read.
func FuzzCheck(f *testing.F) {
	b, err := os.ReadFile(filled(f, 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if check(bytes.NewReader(b), int64(len(b))) != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatalf("sound, and not opened: %v", err)
		}
		defer db.Close()
		if err := db.Update(func(tx *bolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
				return b.ForEach(func(_,
					_ []byte) error {
					return nil
				})
			})
		}); err != nil {
			t.Log(err)
		}
	})
}
