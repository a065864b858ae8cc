package main

import "strconv"

// optionalInt is a flag with a whole number that may be left out.
type optionalInt struct{ value *int } // nil: it was left out

// String is the number.
func (o *optionalInt) String() string {
	if o.value == nil {
		return ""
	}
	return strconv.Itoa(*o.value)
}

// Set reads one.
func (o *optionalInt) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err == nil {
		o.value = &n
	}
	return err
}

// Type is what help calls it.
func (o *optionalInt) Type() string { return "int" }
