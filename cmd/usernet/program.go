package main

import "embed"

//go:embed embedded
var embedded embed.FS

// sandboxProgram is the program that make build put in; nil where it did not.
func sandboxProgram() []byte {
	b, err := embedded.ReadFile("embedded/usernet-sandbox")
	if err != nil {
		return nil
	}
	return b
}
