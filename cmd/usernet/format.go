package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/moby/moby/api/types/container"
)

// templateFuncs are the functions that Docker's templates know.
var templateFuncs = template.FuncMap{
	"json":  func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
	"join":  strings.Join,
	"lower": strings.ToLower, "upper": strings.ToUpper, "split": strings.Split,
	"println": fmt.Sprintln,
	"pad": func(s string, before, after int) string {
		return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
	},
}

func parseTemplate(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(templateFuncs).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return t, nil
}

// printObjects is what inspect commands do: JSON, or each object through a template.
func printObjects[T any](format string, list []T) error {
	switch format {
	case "", "json":
		e := json.NewEncoder(os.Stdout)
		if format == "" {
			e.SetIndent("", "    ")
			return e.Encode(list)
		}
		return e.Encode(list)
	}
	t, err := parseTemplate(format)
	if err != nil {
		return err
	}
	for _, v := range list {
		var b bytes.Buffer
		err := t.Execute(&b, v)
		if old, ok := any(v).(withOldForm); err != nil && ok {
			// The template may name what only older versions of the API have, as it may with docker.
			b.Reset()
			err = t.Option("missingkey=error").Execute(&b, old.old)
		}
		if err != nil {
			return fmt.Errorf("template: %w", err)
		}
		fmt.Println(b.String())
	}
	return nil
}

// withOldForm is an object together with what an older version of the API gives for it, decoded as it came.
type withOldForm struct {
	container.InspectResponse
	old map[string]any
}

// table is what list commands print: columns of rows, JSON lines, or each row through a template.
type table struct {
	header  map[string]string // field -> column title
	columns string            // the template of the default table, fields separated by tabs
}

// print writes rows, structures whose fields the template names, in format: "", "table", "table TEMPLATE", "json" or TEMPLATE.
func (tb table) print(format string, rows []any) error {
	if format == "json" {
		e := json.NewEncoder(os.Stdout)
		for _, r := range rows {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	text, isTable := strings.CutPrefix(format, "table")
	isTable = isTable || format == ""
	if text = strings.TrimSpace(text); text == "" {
		text = tb.columns
	}
	t, err := parseTemplate(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text))
	if err != nil {
		return err
	}
	var out io.Writer = os.Stdout
	if isTable {
		w := tabwriter.NewWriter(os.Stdout, 10, 1, 3, ' ', 0)
		defer w.Flush()
		out = w
		if err := t.Execute(out, tb.header); err != nil {
			return fmt.Errorf("template: %w", err)
		}
		fmt.Fprintln(out)
	}
	for _, r := range rows {
		if err := t.Execute(out, r); err != nil {
			return fmt.Errorf("template: %w", err)
		}
		fmt.Fprintln(out)
	}
	return nil
}
