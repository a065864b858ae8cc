package main

import (
	"compress/gzip"
	"embed"
	"io"
)

//go:embed embedded
var embedded embed.FS

// sandboxProgram is the program of sandboxes, if make build put it in.
func sandboxProgram() io.Reader {
	f, err := embedded.Open("embedded/usernet-sandbox")
	if err != nil {
		return nil
	}
	return f
}

// etcdProgram is the program that speaks to etcd, if make build put it in.
func etcdProgram() io.Reader {
	f, err := embedded.Open("embedded/usernet-etcd.gz")
	if err != nil {
		return nil
	}
	program, err := gzip.NewReader(f)
	if err != nil {
		return nil
	}
	return program
}
