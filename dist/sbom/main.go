// Command sbom prints what a binary of usernet is made of, as a document of CycloneDX 1.5 (https://cyclonedx.org):
//
//	go run ./dist/sbom BINARY
//
// It reads the build information that Go writes into each program: of the binary, and of the programs that are embedded
// in it. The output depends on the binary alone, so that two builds of one commit have the same document.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
)

type document struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Serial     string      `json:"serialNumber"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []component `json:"components"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: sbom BINARY")
		os.Exit(2)
	}
	binary, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = write(os.Stdout, binary)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "sbom: %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func write(w io.Writer, binary []byte) error {
	programs := builds(binary)
	if len(programs) == 0 {
		return errors.New("no program of Go: give a binary that scripts/build.sh has made")
	}
	modules, err := modulesOf(programs)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(binary)
	usernet := component{Type: "application", Name: "usernet", Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}}}
	for _, p := range programs {
		usernet.Properties = append(usernet.Properties, property{"go:package", p.Path})
	}
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // a UUID of version 8 (RFC 9562): ours, of the hash
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(document{
		Format: "CycloneDX", Spec: "1.5", Version: 1,
		Serial:     fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]),
		Metadata:   metadata{usernet},
		Components: modules,
	})
}

// builds is the build information of the binary and of what is embedded in it, which is there as it is or compressed by
// gzip(1).
func builds(binary []byte) (found []*debug.BuildInfo) {
	for at := range occurrences(binary, elf) {
		if info, err := buildinfo.Read(bytes.NewReader(binary[at:])); err == nil {
			found = append(found, info)
		}
	}
	for at := range occurrences(binary, gzipped) {
		r, err := gzip.NewReader(bytes.NewReader(binary[at:]))
		if err != nil {
			continue
		}
		r.Multistream(false)
		program, err := io.ReadAll(r)
		if err != nil {
			continue // bytes that look like a beginning
		}
		if info, err := buildinfo.Read(bytes.NewReader(program)); err == nil {
			found = append(found, info)
		}
	}
	return found
}

// What a program begins with, and what gzip(1) writes first: its two bytes, and the method of compression.
var (
	elf     = []byte("\x7fELF")
	gzipped = []byte("\x1f\x8b\x08")
)

// occurrences are the positions of what in b.
func occurrences(b, what []byte) iter.Seq[int] {
	return func(yield func(int) bool) {
		for at := 0; ; at += len(what) {
			next := bytes.Index(b[at:], what)
			if next < 0 {
				return
			}
			at += next
			if !yield(at) {
				return
			}
		}
	}
}

// modulesOf is the modules of all programs, each once, with Go's standard library.
func modulesOf(programs []*debug.BuildInfo) ([]component, error) {
	all := map[string]component{}
	for _, p := range programs {
		std := strings.TrimPrefix(strings.Fields(p.GoVersion)[0], "go")
		all["std"] = component{Type: "library", Name: "std", Version: std, PURL: "pkg:golang/std@" + std}
		for _, m := range p.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:"))
			if err != nil || len(sum) != sha256.Size {
				return nil, fmt.Errorf("module %s has no sum of go.sum: %q", m.Path, m.Sum)
			}
			all[m.Path+"@"+m.Version] = component{
				Type: "library", Name: m.Path, Version: m.Version,
				PURL:   "pkg:golang/" + m.Path + "@" + m.Version,
				Hashes: []hash{{"SHA-256", hex.EncodeToString(sum)}}, // of the module's files, as in go.sum
			}
		}
	}
	var list []component
	for _, key := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[key])
	}
	return list, nil
}
