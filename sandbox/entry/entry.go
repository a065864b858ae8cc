package entry

import (
	"fmt"
	"os"
	"syscall"
)

// Descriptors of a program that is started with steps to take.
const (
	ControlFD        = 3 // the parent's socket
	FirstNamespaceFD = 4 // the first namespace to enter; the others follow it
)

// maxNamespaces bounds the count, which the stage reads as one digit.
const maxNamespaces = 9

// Steps are what the stage does.
type Steps struct {
	Namespaces int     // how many descriptors from FirstNamespaceFD on are entered
	CloneFlags uintptr // of the child in which the program goes on; 0: no child
}

// Argument is the steps as the stage reads them, the second argument of the program: a digit and eight hexadecimal
// ones.
func (s Steps) Argument() string {
	if s.Namespaces > maxNamespaces {
		panic("entry: more namespaces than there are kinds")
	}
	return fmt.Sprintf("%d%08x", s.Namespaces, uint32(s.CloneFlags))
}

// Result is the error of the step that failed; nil where all were taken. A program that was started without steps has
// none that can fail.
func Result() error {
	if !keep() {
		return nil
	}
	if len(os.Args) < 3 || len(os.Args[2]) < 2 || os.Args[2][0] != 'E' {
		return nil
	}
	return fmt.Errorf("namespaces cannot be entered: %w", syscall.Errno(os.Args[2][1]))
}
