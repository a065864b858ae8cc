package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/creack/pty"
)

// inTerminal: COMMAND... It runs the command in a terminal of its own, prints what appears there, and last the
// command's exit status.
func inTerminal(args []string) error {
	if len(args) == 0 {
		return errors.New("give a command")
	}
	c := exec.Command(args[0], args[1:]...)
	master, err := pty.StartWithSize(c, &pty.Winsize{Cols: 80, Rows: 24})
	if err != nil {
		return err
	}
	defer master.Close()
	lines := bufio.NewScanner(master)
	for lines.Scan() { // to EIO: nobody has the terminal open any more
		line := strings.TrimSuffix(lines.Text(), "\r")
		fmt.Println(line)
		if line == "resize" {
			if err := pty.Setsize(master, &pty.Winsize{Cols: 100, Rows: 30}); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, syscall.EIO) {
		return err
	}
	_ = c.Wait() // the status is printed
	_, err = fmt.Fprintln(os.Stdout, "exit status", c.ProcessState.ExitCode())
	return err
}
