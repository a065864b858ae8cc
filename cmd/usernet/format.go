package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/term"
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
		text, err := execute(t, v)
		if err != nil {
			return err
		}
		fmt.Println(text)
	}
	return nil
}

// unset is how netip prints what is not set; Docker prints nothing.
var unset = strings.NewReplacer("invalid IP", "", "invalid Prefix", "")

// execute puts v through a template; where that fails, what v is in JSON, as docker does: templates may say .Id for
// .ID, and what only older versions of the API have.
func execute(t *template.Template, v any) (string, error) {
	var b bytes.Buffer
	err := t.Execute(&b, v)
	if err == nil {
		return unset.Replace(b.String()), nil
	}
	raw := any(nil)
	if old, ok := v.(withOldForm); ok {
		raw = old.old
	} else if raw, err = plain(v); err != nil {
		return "", err
	}
	b.Reset()
	if err := t.Option("missingkey=error").Execute(&b, raw); err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	return b.String(), nil
}

// plain is v as JSON shows it, in maps and slices.
func plain(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var m any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	err = d.Decode(&m)
	return m, err
}

// withOldForm is an object together with what an older version of the API gives for it, in maps and slices.
type withOldForm struct {
	container.InspectResponse
	old any
}

// table is what list commands print: columns of rows, JSON lines, or each row through a template.
type table struct {
	header  headings
	columns string // the template of the default table, fields separated by tabs
}

// headings are column titles by field.
type headings map[string]string

// Label is the title of a column that shows a label: the last part of its name.
func (headings) Label(name string) string {
	return strings.NewReplacer("-", " ", "_", " ").Replace(name[strings.LastIndexByte(name, '.')+1:])
}

// print writes rows, structures whose fields the template names, in format: "", "table", "table TEMPLATE", "json" or
// TEMPLATE.
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
	if isTable {
		rows = append([]any{tb.header}, rows...)
	}
	var b bytes.Buffer
	for _, r := range rows {
		if err := t.Execute(&b, r); err != nil {
			return fmt.Errorf("template: %w", err)
		}
		b.WriteByte('\n')
	}
	if !isTable {
		_, err := os.Stdout.Write(b.Bytes())
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 10, 1, columnGap, ' ', 0)
	fmt.Fprint(w, fit(b.String(), terminalWidth()))
	return w.Flush()
}

// terminalWidth is the number of columns of the terminal on standard output, or 0 where that is none.
func terminalWidth() int {
	width, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return 0
	}
	return width
}
