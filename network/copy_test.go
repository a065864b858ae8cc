package network

import (
	"reflect"
	"testing"
)

// fill gives every field of v something, pointers, slices and maps included.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	default:
		switch {
		case v.CanInt():
			v.SetInt(7)
		case v.CanUint():
			v.SetUint(7)
		}
	}
}

// shared names what two values both point to.
func shared(t *testing.T, a, b reflect.Value, at string) {
	switch a.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		if a.Type().PkgPath() == "time" || a.IsNil() {
			return
		}
		if a.Pointer() == b.Pointer() {
			t.Errorf("%s is shared", at)
		}
	}
	switch a.Kind() {
	case reflect.Pointer:
		shared(t, a.Elem(), b.Elem(), at)
	case reflect.Slice:
		for i := range a.Len() {
			shared(t, a.Index(i), b.Index(i), at+"[]")
		}
	case reflect.Struct:
		for i := range a.NumField() {
			if f := a.Type().Field(i); f.IsExported() {
				shared(t, a.Field(i), b.Field(i), at+"."+f.Name)
			}
		}
	}
}

func TestCopiesShareNothing(t *testing.T) {
	n, c := &Network{}, &Container{}
	fill(reflect.ValueOf(n).Elem())
	fill(reflect.ValueOf(c).Elem())
	for _, x := range []struct{ a, b any }{{n, n.clone()}, {c, c.clone()}} {
		if !reflect.DeepEqual(x.a, x.b) {
			t.Errorf("the copy is another: %+v, %+v", x.a, x.b)
		}
		shared(t, reflect.ValueOf(x.a), reflect.ValueOf(x.b), reflect.TypeOf(x.a).Elem().Name())
	}
}
