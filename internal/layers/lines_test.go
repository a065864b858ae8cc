package layers

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxColumns is how wide a line may be, with tabs of tabColumns.
const (
	maxColumns = 120
	tabColumns = 4
)

// longText is from how many columns on a string is not broken.
const longText = 60

func columns(line string) int {
	tabs := len(line) - len(strings.TrimLeft(line, "\t"))
	return utf8.RuneCountInString(line) + tabs*(tabColumns-1)
}

// textLines are the lines of a file on which a raw string is, or a long one: they are as wide as the text is.
func textLines(src []byte) map[int]bool {
	set := token.NewFileSet()
	file := set.AddFile("", set.Base(), len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, 0)
	lines := map[int]bool{}
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return lines
		}
		if tok != token.STRING || lit[0] != '`' && len(lit) < longText {
			continue
		}
		first := file.Line(pos)
		for l := first; l <= first+strings.Count(lit, "\n"); l++ {
			lines[l] = true
		}
	}
}

func TestLinesAreNotTooWide(t *testing.T) {
	root := filepath.Join("..", "..")
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		files++
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var texts map[int]bool
		for i, line := range strings.Split(string(src), "\n") {
			if columns(line) <= maxColumns {
				continue
			}
			if texts == nil {
				texts = textLines(src)
			}
			if !texts[i+1] {
				t.Errorf("%s:%d has %d columns; %d are possible: %s", name, i+1, columns(line), maxColumns, line)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 600 {
		t.Errorf("only %d files were read: this test reads the wrong tree", files)
	}
}
