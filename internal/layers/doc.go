// Package layers holds what is the same in all packages of this module. It has only tests, which read all files.
//
//   - A package of a lower layer never imports one of a higher, so that each can be read, tested and used without what
//     stands above it. docs/architecture.md draws the layers.
//   - What configures something has no field that its package does not read, or that only tests set.
//   - Nothing but the model compares names of networks' drivers.
//   - The map in docs/architecture.md has each package, and its ways the files that there are.
//   - Nothing but package sockio copies descriptors, or sends them beside messages.
//   - Lines have 120 columns at most, in the folders that are listed for it.
package layers
