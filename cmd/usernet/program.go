package main

import (
	"embed"
	"io"
)

//go:embed embedded
var embedded embed.FS

// sandboxProgram is the program that make build put in; nil where it did not.
func sandboxProgram() io.Reader {
	f, err := embedded.Open("embedded/usernet-sandbox")
	if err != nil {
		return nil
	}
	return f
}
