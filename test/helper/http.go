package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
)

// httpServe: ADDR. It prints "listening", and each request that comes, whole, and answers it.
func httpServe(args []string) error {
	l, err := net.Listen("tcp", arg(args, 0, ":80"))
	if err != nil {
		return err
	}
	fmt.Println("listening")
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := httputil.DumpRequest(r, false)
		if err != nil {
			text = []byte(err.Error())
		}
		_, _ = os.Stdout.Write(text)
		_, _ = io.WriteString(w, "hello\n")
	}))
}
