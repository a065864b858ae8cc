// Package boltstore keeps records in one bbolt file, and treats that file as something that can be damaged.
//
// # The central idea
//
// bbolt trusts its file: on a page that makes no sense it panics, reads memory that is not mapped, or walks in a
// circle. So Open reads the whole file first, through ordinary reads and with every offset checked (check.go), and
// gives it to bbolt only when the structure is sound. What is then still caught while bbolt runs, such as a file that
// shrinks under it, becomes an error as well, and ends all reading and writing. Once its reader has found the records
// to make sense, SaveCopy puts a copy of the file beside it: FILE.good.
//
// An error of the kind ErrDamaged names the file, what is wrong, the copy if there is one, and the commands that lead
// on.
//
// Package daemon opens it for the model (package network). It knows nothing of networks and containers.
package boltstore
