// Package layers holds the directions in which packages of this module import each other. It has only a test, which reads the
// import statements of all files: a package of a lower layer never imports one of a higher, so that each can be read, tested
// and used without what stands above it. docs/architecture.md draws the layers.
package layers
