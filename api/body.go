package api

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"github.com/usernet/usernet/internal/errdefs"
)

// readBody decodes the JSON value that is r's body into v, which it leaves alone where there is no body. Texts are
// Docker's.
//
// It refuses a body that is not said to be JSON, fields that v does not have, and anything behind the value: what is
// accepted is acted on as a whole, or not at all.
func readBody(r *http.Request, v any) error {
	kind := r.Header.Get("Content-Type")
	if kind == "" && r.ContentLength == 0 {
		return nil
	}
	media, _, err := mime.ParseMediaType(kind)
	switch {
	case err != nil:
		return errdefs.Invalid("malformed Content-Type header (%s): %w", kind, err)
	case media != "application/json":
		return errdefs.Invalid("unsupported Content-Type header (%s): must be 'application/json'", kind)
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	switch err := d.Decode(v); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return errdefs.Invalid("invalid JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errdefs.Invalid("unexpected content after JSON")
	}
	return nil
}
