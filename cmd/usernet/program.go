package main

import (
	"embed"
	"io"
)

//go:embed embedded
var embedded embed.FS

// sandboxProgram is the program of sandboxes, if make build put it in.
func sandboxProgram() io.Reader { return program("usernet-sandbox") }

// etcdProgram is the program that speaks to etcd, if make build put it in.
func etcdProgram() io.Reader { return program("usernet-etcd") }

func program(name string) io.Reader {
	f, err := embedded.Open("embedded/" + name)
	if err != nil {
		return nil
	}
	return f
}
