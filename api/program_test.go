package api

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/leak"
)

// TestProgramComesAsADescriptor asks servers with and without an executable of sandboxes.
func TestProgramComesAsADescriptor(t *testing.T) {
	file := fileWith(t, "a program")
	for what, test := range map[string]struct {
		program func() (*os.File, error)
		says    string // "": it comes
	}{
		"one":            {func() (*os.File, error) { return file, nil }, ""},
		"none":           {nil, "501"},
		"one that fails": {func() (*os.File, error) { return nil, errors.New("no memory") }, "500"},
	} {
		t.Run(what, func(t *testing.T) {
			before := leak.Descriptors(t)
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			s := NewServer(nobody{}, slog.New(slog.DiscardHandler))
			s.OnProgram(test.program)
			s.CheckPeers(func(int) error { return errors.New("in a container") }) // who may have it all the same
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			c := NewClient(socket)
			f, err := c.Program(t.Context())
			if test.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				if text, err := io.ReadAll(io.NewSectionReader(f, 0, 99)); err != nil || string(text) != "a program" {
					t.Errorf("%q, %v", text, err)
				}
				_ = f.Close()
			} else if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, %v", f, err)
			}
			if err := c.Do(t.Context(), http.MethodPost, programPath, nil, nil); err == nil {
				t.Error("a request that cannot take a descriptor is answered")
			}
			c.http.CloseIdleConnections()
			_ = s.Close()
			<-served
			if _, err := file.Stat(); err != nil {
				t.Errorf("the daemon's own is closed: %v", err)
			}
			before.NoneLeft(t)
		})
	}
}
