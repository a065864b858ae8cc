package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// TestStateFilesAreAll finds what the daemon and the commands put into the state directory, in their source: a name
// that is missing in stateFiles is seen in sandboxes, and so is the whole directory then.
func TestStateFilesAreAll(t *testing.T) {
	found := 0
	for _, pattern := range []string{"*.go", "../../daemon/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				name, ok := nameInState(n)
				if ok {
					found++
				}
				if ok && !slices.Contains(stateFiles, name) {
					t.Errorf("%s has %q in the state directory, which stateFiles does not list", path, name)
				}
				return true
			})
		}
	}
	if found < 8 {
		t.Errorf("only %d uses of the state directory were found", found)
	}
}

// nameInState is the name in a call filepath.Join(x.StateDir, "name", ...).
func nameInState(n ast.Node) (string, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) < 2 {
		return "", false
	}
	if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "Join" {
		return "", false
	}
	if dir, ok := call.Args[0].(*ast.SelectorExpr); !ok || dir.Sel.Name != "StateDir" {
		return "", false
	}
	lit, ok := call.Args[1].(*ast.BasicLit)
	if !ok {
		return "", false
	}
	name, err := strconv.Unquote(lit.Value)
	return name, err == nil
}
