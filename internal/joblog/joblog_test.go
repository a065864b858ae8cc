package joblog

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLogsFollowAFileThatIsTurnedOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	r := Reader{Path: path}
	defer r.Close()
	expect := func(want string) {
		t.Helper()
		lines, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, l := range lines {
			got += l.Log
		}
		if got != want {
			t.Errorf("read %q, want %q", got, want)
		}
	}
	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	expect("") // it is not there yet
	write(`{"log":"a"}` + "\n" + `{"lo`)
	expect("a")
	write(`g":"b"}` + "\n")
	expect("b")
	write(`{"log":"c"}` + "\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(`{"log":"d"}` + "\n")
	expect("cd")
	expect("")
}
