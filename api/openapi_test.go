package api

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/usernet/usernet/network"
)

var update = flag.Bool("update", false, "write docs/openapi.yaml anew")

const openAPIFile = "../docs/openapi.yaml"

// TestOpenAPIFileIsWhatTheHandlersDo makes the document from the routes, the Go types of their bodies and the comments
// of those types, and compares it with the file.
func TestOpenAPIFileIsWhatTheHandlersDo(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("# The requests under /usernet/. Made from the handlers: go test ./api -run OpenAPI -update\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(newOpenAPI(t).document(new(Server).usernetRoutes())); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(openAPIFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(openAPIFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s does not say what the handlers do: run go test ./api -run OpenAPI -update", openAPIFile)
	}
}

// TestOpenAPIFileIsSound reads the file as its users do: each reference leads to a schema, each schema is used, and
// each parameter of a path is declared.
func TestOpenAPIFileIsSound(t *testing.T) {
	text, err := os.ReadFile(openAPIFile)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI    string                               `yaml:"openapi"`
		Paths      map[string]map[string]map[string]any `yaml:"paths"`
		Components struct {
			Schemas map[string]any `yaml:"schemas"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || len(doc.Paths) == 0 {
		t.Errorf("openapi %q with %d paths", doc.OpenAPI, len(doc.Paths))
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`#/components/schemas/(\w+)`).FindAllStringSubmatch(string(text), -1) {
		used[m[1]] = true
		if doc.Components.Schemas[m[1]] == nil {
			t.Errorf("schema %s is referred to and not there", m[1])
		}
	}
	for name := range doc.Components.Schemas {
		if !used[name] {
			t.Errorf("schema %s is not used", name)
		}
	}
	ids := map[any]bool{}
	for path, operations := range doc.Paths {
		for method, o := range operations {
			if ids[o["operationId"]] {
				t.Errorf("%s %s: operationId %v is there twice", method, path, o["operationId"])
			}
			ids[o["operationId"]] = true
			if strings.Contains(path, "{ref}") != strings.Contains(fmt.Sprint(o["parameters"]), "in:path") {
				t.Errorf("%s %s: parameters of the path are not declared: %v", method, path, o["parameters"])
			}
		}
	}
}

type object = map[string]any

// openAPI makes the document. Requests and answers have schemas of their own where a type stands in both, because an
// answer has all fields and a request need not.
type openAPI struct {
	comments map[string]string // TYPE and TYPE.FIELD
	schemas  object
}

func newOpenAPI(t *testing.T) *openAPI {
	o := &openAPI{comments: map[string]string{}, schemas: object{}}
	for _, dir := range []string{".", "../network", "../internal/ports"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, o.note)
		}
	}
	return o
}

// note keeps the comments of a declaration of types.
func (o *openAPI) note(n ast.Node) bool {
	d, ok := n.(*ast.GenDecl)
	if !ok || d.Tok != token.TYPE {
		return true
	}
	for _, s := range d.Specs {
		t := s.(*ast.TypeSpec)
		o.comments[t.Name.Name] = sentence(d.Doc)
		fields, ok := t.Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, f := range fields.Fields.List {
			for _, name := range f.Names {
				text := sentence(f.Doc)
				if f.Comment != nil {
					text = sentence(f.Comment)
				}
				o.comments[t.Name.Name+"."+name.Name] = text
			}
		}
	}
	return true
}

func sentence(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

// openAPIDocument is the whole, in the order in which it is read.
type openAPIDocument struct {
	OpenAPI    string   `yaml:"openapi"`
	Info       object   `yaml:"info"`
	Servers    []object `yaml:"servers"`
	Paths      object   `yaml:"paths"`
	Components object   `yaml:"components"`
}

func (o *openAPI) document(routes []route) openAPIDocument {
	paths := object{}
	for _, r := range routes {
		p, ok := paths[r.path].(object)
		if !ok {
			p = object{}
			paths[r.path] = p
		}
		p[strings.ToLower(r.method)] = o.operation(r)
	}
	o.schemas["Error"] = object{
		"type":        "object",
		"description": "What is said to the user.",
		"required":    []string{"message"},
		"properties":  object{"message": object{"type": "string"}},
	}
	return openAPIDocument{
		OpenAPI: "3.1.0",
		Info: object{
			"title": "usernet", "version": "1",
			"description": "Beside Docker's Engine API, of which it has the parts about networks, containers, events " +
				"and the system, the daemon " +
				"answers these requests on its unix socket. Only the daemon's own user and root are let in. Bodies " +
				"are JSON.",
		},
		Servers: []object{
			{"url": "http://localhost", "description": "over the unix socket $XDG_RUNTIME_DIR/usernet/usernet.sock"},
		},
		Paths:      paths,
		Components: object{"schemas": o.schemas},
	}
}

func (o *openAPI) operation(r route) object {
	failure := object{
		"description": "not done; the status says why, the message what to do",
		"content":     content(object{"$ref": "#/components/schemas/Error"}),
	}
	op := object{"summary": r.summary, "operationId": operationID(r), "responses": object{"default": failure}}
	var parameters []object
	if strings.Contains(r.path, "{ref}") {
		parameters = append(
			parameters,
			object{"name": "ref", "in": "path", "required": true, "description": "name, id, or unique prefix of an id",
				"schema": object{"type": "string"}},
		)
	}
	for _, q := range r.query {
		parameters = append(
			parameters,
			object{
				"name":        q.name,
				"in":          "query",
				"required":    q.required,
				"description": q.text,
				"schema":      object{"type": q.kind},
			},
		)
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	if r.in != reflect.TypeFor[none]() {
		op["requestBody"] = object{"required": true, "content": content(o.schema(r.in, true))}
	}
	responses := op["responses"].(object)
	if r.stream != "" {
		binary := object{"schema": object{"type": "string", "format": "binary"}}
		responses["200"] = object{"description": "as it happens", "content": object{r.stream: binary}}
	} else if r.out == reflect.TypeFor[none]() {
		responses["204"] = object{"description": "done"}
	} else {
		responses["200"] = object{"description": "done", "content": content(o.schema(r.out, false))}
	}
	return op
}

func content(schema any) object { return object{"application/json": object{"schema": schema}} }

// operationID is the method and the path's words: postContainersStart.
func operationID(r route) string {
	id := strings.ToLower(r.method)
	for _, w := range strings.Split(r.path, "/") {
		switch w {
		case "", "usernet":
		case "{ref}":
			id += "One"
		default:
			id += strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return id
}

// texts are types that JSON shows as strings.
var texts = map[reflect.Type]string{
	reflect.TypeFor[netip.Addr]():     "IPv4 or IPv6 address",
	reflect.TypeFor[netip.Prefix]():   "subnet, or address with its subnet's length, such as 10.1.0.0/16",
	reflect.TypeFor[netip.AddrPort](): "address and port, such as 10.1.0.2:80 or [fd00::2]:80",
	reflect.TypeFor[network.MAC]():    "MAC address",
}

// values are those of types that have few.
var values = map[reflect.Type][]string{
	reflect.TypeFor[network.Status]():   {string(network.Created), string(network.Running), string(network.Exited)},
	reflect.TypeFor[network.Protocol](): {string(network.TCP), string(network.UDP), string(network.SCTP)},
}

func (o *openAPI) schema(t reflect.Type, request bool) object {
	switch {
	case texts[t] != "":
		return object{"type": "string", "description": texts[t]}
	case values[t] != nil:
		return object{"type": "string", "enum": values[t]}
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[time.Duration]():
		return object{"type": "integer", "description": "nanoseconds"}
	case t == reflect.TypeFor[json.Number]():
		return object{"type": "number"}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		panic("say in texts what " + t.String() + " looks like")
	}
	switch t.Kind() {
	case reflect.Pointer:
		return o.schema(t.Elem(), request)
	case reflect.Interface:
		return object{}
	case reflect.Slice:
		return object{"type": []string{"array", "null"}, "items": o.schema(t.Elem(), request)}
	case reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": o.schema(t.Elem(), request)}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Struct:
		return o.structure(t, request)
	}
	if t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64 {
		return object{"type": "integer"}
	}
	panic("no schema for " + t.String())
}

// structure adds a structure's schema where it is missing, and returns a reference to it.
func (o *openAPI) structure(t reflect.Type, request bool) object {
	name := t.Name()
	if request {
		name = strings.TrimSuffix(name, "Spec") + "Request"
	}
	reference := object{"$ref": "#/components/schemas/" + name}
	if o.schemas[name] != nil {
		return reference
	}
	properties, required := object{}, []string{}
	s := object{"type": "object", "properties": properties, "additionalProperties": false}
	o.schemas[name] = s
	o.fields(t, request, properties, &required)
	if text := o.comments[t.Name()]; text != "" {
		s["description"] = text
	}
	if request {
		required = mandatory[t]
	}
	if len(required) > 0 {
		s["required"] = required
	}
	return reference
}

// mandatory are the fields without which a request is refused.
var mandatory = map[reflect.Type][]string{
	reflect.TypeFor[network.NetworkSpec](): {"Name"},
	reflect.TypeFor[Attachment]():          {"Container"},
	reflect.TypeFor[network.PortBinding](): {"port", "proto"},
}

func (o *openAPI) fields(t reflect.Type, request bool, properties object, required *[]string) {
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || !f.IsExported() {
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		p := maps.Clone(o.schema(f.Type, request))
		if list, ok := p["type"].([]string); ok && strings.Contains(options, "omit") && !request {
			p["type"] = list[0] // what is left out where it is empty is never null
		}
		owner := t
		if len(f.Index) > 1 {
			owner = t.FieldByIndex(f.Index[:len(f.Index)-1]).Type
		}
		if text := o.comments[owner.Name()+"."+f.Name]; text != "" {
			p["description"] = text
		}
		properties[name] = p
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
	slices.Sort(*required)
}
