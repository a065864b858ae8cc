package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// field is one of a struct that configures something.
type field struct{ dir, typ, name string }

// uses are where names of fields are read and set, by the directory of their package, in files that are no tests.
type uses struct {
	read  map[[2]string]bool // in the package itself: as x.Name, but on the left of an assignment
	set   map[[3]string]bool // with the type where it is known: in a literal, by an assignment, or by its address
	whole map[[2]string]bool // types with composite literals without names, which set all fields
}

// configures are names of types whose fields others set, for the package to read.
var configures = []string{"Config", "Options", "Route", "Client"}

// decoded are packages whose type of such a name is read from JSON.
var decoded = []string{"runtimes/rootlessport"}

// look adds what a file of a directory declares and uses. What is set in a value of an unknown type counts for each
// package of this module that the file knows.
func (u *uses) look(dir string, file *ast.File) (fields []field) {
	imported := map[string]string{} // directories by what the file calls the packages
	known := []string{dir}
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		if d, ok := strings.CutPrefix(path, module); ok {
			name := filepath.Base(d)
			if spec.Name != nil {
				name = spec.Name.Name
			}
			imported[name] = d
			known = append(known, d)
		}
	}
	typeOf := func(e ast.Expr) (of []string, name string) {
		switch e := e.(type) {
		case *ast.Ident:
			return []string{dir}, e.Name
		case *ast.SelectorExpr:
			if x, ok := e.X.(*ast.Ident); ok {
				return []string{imported[x.Name]}, e.Sel.Name
			}
		}
		return known, ""
	}
	set := func(e ast.Expr) {
		if i, ok := e.(*ast.IndexExpr); ok {
			e = i.X
		}
		if s, ok := e.(*ast.SelectorExpr); ok {
			for _, d := range known {
				u.set[[3]string{d, "", s.Sel.Name}] = true
			}
		}
	}
	assigned := map[ast.Expr]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec:
			s, ok := n.Type.(*ast.StructType)
			if !ok || !slices.Contains(configures, n.Name.Name) || slices.Contains(decoded, dir) {
				break
			}
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					if f.Tag == nil && name.IsExported() {
						fields = append(fields, field{dir, n.Name.Name, name.Name})
					}
				}
			}
		case *ast.CompositeLit:
			of, name := typeOf(n.Type)
			for _, e := range n.Elts {
				for _, d := range of {
					if kv, ok := e.(*ast.KeyValueExpr); !ok {
						u.whole[[2]string{d, name}] = true
					} else if key, ok := kv.Key.(*ast.Ident); ok {
						u.set[[3]string{d, name, key.Name}] = true
					}
				}
			}
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				set(left)
				assigned[left] = n.Tok == token.ASSIGN
			}
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				set(n.X)
			}
		case *ast.SelectorExpr:
			if !assigned[n] {
				u.read[[2]string{dir, n.Sel.Name}] = true
			}
		}
		return true
	})
	return fields
}

// eachFile calls f for all files that are no tests, with their directories.
func eachFile(t *testing.T, f func(dir string, file *ast.File, set *token.FileSet)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, _ := filepath.Rel(root, filepath.Dir(path))
		f(dir, file, set)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSettingsAreReadAndSet holds that what configures something has no field that its package does not read, or that
// only tests set. It goes by names, so that it finds most of them, not all.
func TestSettingsAreReadAndSet(t *testing.T) {
	u := &uses{read: map[[2]string]bool{}, set: map[[3]string]bool{}, whole: map[[2]string]bool{}}
	var all []field
	eachFile(t, func(dir string, file *ast.File, _ *token.FileSet) { all = append(all, u.look(dir, file)...) })
	if len(all) < 100 {
		t.Errorf("only %d fields were found: this test reads the wrong tree", len(all))
	}
	for _, f := range all {
		if !u.read[[2]string{f.dir, f.name}] {
			t.Errorf("%s: nothing in the package reads %s.%s", f.dir, f.typ, f.name)
		}
		set := u.set[[3]string{f.dir, f.typ, f.name}] || u.set[[3]string{f.dir, "", f.name}]
		if !set && !u.whole[[2]string{f.dir, f.typ}] {
			t.Errorf("%s: nothing but tests sets %s.%s", f.dir, f.typ, f.name)
		}
	}
}

// TestDriversAreNotCompared holds that nothing but the model asks for a network's driver by its name: a further driver
// is a line in network.Drivers, whose fields say what its networks are like.
func TestDriversAreNotCompared(t *testing.T) {
	name := func(e ast.Expr) bool {
		s, ok := e.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		x, ok := s.X.(*ast.Ident)
		return ok && x.Name == "network" && strings.HasPrefix(s.Sel.Name, "Driver") && s.Sel.Name != "Drivers"
	}
	eachFile(t, func(_ string, file *ast.File, set *token.FileSet) {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if (n.Op == token.EQL || n.Op == token.NEQ) && (name(n.X) || name(n.Y)) {
					t.Errorf("%s compares a driver's name", set.Position(n.Pos()))
				}
			case *ast.CaseClause:
				if slices.ContainsFunc(n.List, name) {
					t.Errorf("%s compares a driver's name", set.Position(n.Pos()))
				}
			}
			return true
		})
	})
}

// TestDescriptorsArePassedInOnePlace holds that descriptors are copied and sent beside messages by package sockio: what
// it does about their flags, bounds and errors is then the same everywhere.
func TestDescriptorsArePassedInOnePlace(t *testing.T) {
	names := []string{"F_DUPFD", "F_DUPFD_CLOEXEC", "UnixRights", "ParseUnixRights"}
	eachFile(t, func(dir string, file *ast.File, set *token.FileSet) {
		if dir == filepath.Join("internal", "sockio") {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(names, s.Sel.Name) {
				t.Errorf("%s uses %s, which package sockio does", set.Position(n.Pos()), s.Sel.Name)
			}
			return true
		})
	})
}
