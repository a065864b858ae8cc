package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The file's format, version 2 (go.etcd.io/bbolt/internal/common: page.go, meta.go, bucket.go). Numbers are in the
// machine's byte order. A page begins with a header:
//
//	id u64 | flags u16 | count u16 | overflow u32
//
// and goes on over overflow further pages. Pages 0 and 1 are metas, of which the valid one with the higher transaction
// counts.
const (
	pageHeader  = 16
	elementSize = 16 // of a branch and of a leaf
	bucketSize  = 16 // root u64 | sequence u64
	metaSize    = 64

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf's element: the value is a bucket

	metaMagic   = 0xED0CDAED
	metaVersion = 2

	// noFreelist is in a meta where the list of free pages is not stored. This program always stores it.
	noFreelist = ^uint64(0)

	// longFreelist as a count says that the count is the first number of the list.
	longFreelist = 0xFFFF
)

// maxFile bounds the size of a file that is read, in bytes. A network and a container take some kilobytes each.
const maxFile = 1 << 30

// maxDepth bounds how deep pages and buckets lie in each other. A tree of 2^32 pages with two keys a page is 32 deep.
const maxDepth = 64

var order = binary.NativeEndian

// meta is what of a meta page is needed.
type meta struct {
	pageSize uint64
	root     uint64 // page of the root bucket
	freelist uint64 // page of the list of free pages
	end      uint64 // number of the first page that was never used
	txid     uint64
}

// checker walks through a file. Each page may be met once.
type checker struct {
	file  []byte
	meta  meta
	taken map[uint64]string // page -> by what
}

// check reports what is wrong with the structure of a database of size bytes; nil: nothing. It reads all of it.
func check(r io.ReaderAt, size int64) error {
	if size > maxFile {
		return fmt.Errorf("it has %d bytes, more than %d", size, int64(maxFile))
	}
	file := make([]byte, size)
	if _, err := r.ReadAt(file, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	m, err := newestMeta(file)
	if err != nil {
		return err
	}
	c := &checker{file: file, meta: m, taken: map[uint64]string{0: "meta", 1: "meta"}}
	if m.end*m.pageSize > uint64(size) || m.end > maxFile {
		return fmt.Errorf("it ends at byte %d, before page %d", size, m.end-1)
	}
	if err := c.bucketPages(m.root, 0); err != nil {
		return err
	}
	return c.freelist()
}

// newestMeta finds the meta that bbolt would use.
func newestMeta(file []byte) (meta, error) {
	var best meta
	found := false
	consider := func(at uint64) {
		if at+pageHeader+metaSize > uint64(len(file)) {
			return
		}
		m, ok := parseMeta(file[at+pageHeader:][:metaSize])
		if ok && (!found || m.txid > best.txid) {
			best, found = m, true
		}
	}
	consider(0)
	if found {
		consider(best.pageSize)
	} else {
		for size := uint64(1 << 10); size <= 1<<16; size <<= 1 { // bbolt looks for the second one in the same way
			consider(size)
		}
	}
	if !found {
		return meta{}, errors.New("it has no valid header")
	}
	return best, nil
}

// parseMeta reads magic u32 | version u32 | page size u32 | flags u32 | root u64 | sequence u64 | freelist u64 | end
// u64 | transaction u64 | FNV-1a of all before u64.
func parseMeta(b []byte) (meta, bool) {
	h := fnv.New64a()
	_, _ = h.Write(b[:56])
	m := meta{
		pageSize: uint64(order.Uint32(b[8:])),
		root:     order.Uint64(b[16:]),
		freelist: order.Uint64(b[32:]),
		end:      order.Uint64(b[40:]),
		txid:     order.Uint64(b[48:]),
	}
	valid := order.Uint32(b) == metaMagic && order.Uint32(b[4:]) == metaVersion && order.Uint64(b[56:]) == h.Sum64() &&
		m.pageSize >= 1<<10 && m.pageSize <= 1<<16 && m.pageSize&(m.pageSize-1) == 0 && m.end < maxFile
	return m, valid
}

// page returns a page with those that it goes on over, and marks them as taken.
func (c *checker) page(id uint64, by string) (flags uint16, count int, body []byte, err error) {
	if id < 2 || id >= c.meta.end {
		return 0, 0, nil, fmt.Errorf("%s is at page %d of %d", by, id, c.meta.end)
	}
	b := c.file[id*c.meta.pageSize:]
	overflow := uint64(order.Uint32(b[12:]))
	if got := order.Uint64(b); got != id {
		return 0, 0, nil, fmt.Errorf("page %d says that it is page %d", id, got)
	}
	if overflow >= c.meta.end-id {
		return 0, 0, nil, fmt.Errorf("page %d goes on over %d pages, past the end", id, overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if old, twice := c.taken[i]; twice {
			return 0, 0, nil, fmt.Errorf("page %d is used twice, by %s and by %s", i, old, by)
		}
		c.taken[i] = by
	}
	return order.Uint16(b[8:]), int(order.Uint16(b[10:])), b[:(overflow+1)*c.meta.pageSize], nil
}

// bucketPages goes through the tree of pages of one bucket.
func (c *checker) bucketPages(root uint64, depth int) error {
	var last []byte
	return c.tree(root, depth, &last)
}

// tree goes through a page and those below it. last is the key before.
func (c *checker) tree(id uint64, depth int, last *[]byte) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d lies more than %d deep", id, maxDepth)
	}
	flags, count, body, err := c.page(id, "a bucket")
	if err != nil {
		return err
	}
	switch flags {
	case flagLeaf:
		return c.leaf(body, count, depth, last)
	case flagBranch:
	default:
		return fmt.Errorf("page %d of a bucket has type %#x", id, flags)
	}
	if count == 0 {
		return fmt.Errorf("page %d leads nowhere", id)
	}
	var before []byte
	for i := range count {
		element, err := elementAt(body, i, count)
		if err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		key, err := bytesAt(body, element, order.Uint32(body[element:]), order.Uint32(body[element+4:]))
		if err != nil || i > 0 && bytes.Compare(before, key) >= 0 {
			return fmt.Errorf("page %d: key %d is not one, or out of order", id, i)
		}
		before = key
		if err := c.tree(order.Uint64(body[element+8:]), depth+1, last); err != nil {
			return err
		}
	}
	return nil
}

// leaf goes through the elements of a leaf, which is a page or inside a value.
func (c *checker) leaf(body []byte, count, depth int, last *[]byte) error {
	for i := range count {
		element, err := elementAt(body, i, count)
		if err != nil {
			return err
		}
		flags, pos := order.Uint32(body[element:]), order.Uint32(body[element+4:])
		keySize, valueSize := order.Uint32(body[element+8:]), order.Uint32(body[element+12:])
		key, err := bytesAt(body, element, pos, keySize)
		if err != nil {
			return err
		}
		value, err := bytesAt(body, element+uint64(pos), keySize, valueSize)
		if err != nil {
			return err
		}
		if len(key) == 0 || *last != nil && bytes.Compare(*last, key) >= 0 {
			return fmt.Errorf("key %q is out of order", key)
		}
		*last = key
		switch flags {
		case 0:
		case flagBucket:
			if err := c.bucket(value, depth+1); err != nil {
				return fmt.Errorf("bucket %q: %w", key, err)
			}
		default:
			return fmt.Errorf("key %q has type %#x", key, flags)
		}
	}
	return nil
}

// bucket goes through a bucket in a value: its tree, or the leaf that follows its header.
func (c *checker) bucket(value []byte, depth int) error {
	if depth > maxDepth {
		return errors.New("buckets lie too deep in each other")
	}
	if len(value) < bucketSize {
		return errors.New("it is too short")
	}
	if root := order.Uint64(value); root != 0 {
		return c.bucketPages(root, depth)
	}
	inline := value[bucketSize:]
	if len(inline) < pageHeader || order.Uint16(inline[8:]) != flagLeaf {
		return errors.New("it has no page")
	}
	var last []byte
	return c.leaf(inline, int(order.Uint16(inline[10:])), depth, &last)
}

// freelist compares the list of free pages with those that are used.
func (c *checker) freelist() error {
	if c.meta.freelist == noFreelist {
		return errors.New("it has no list of free pages")
	}
	flags, count, body, err := c.page(c.meta.freelist, "the list of free pages")
	if err != nil {
		return err
	}
	if flags != flagFreelist {
		return fmt.Errorf("the list of free pages has type %#x", flags)
	}
	list := body[pageHeader:]
	n := uint64(count)
	if count == longFreelist {
		n, list = order.Uint64(list), list[8:]
	}
	if n > uint64(len(list))/8 {
		return fmt.Errorf("the list of free pages has %d, more than there is room for", n)
	}
	for i := range n {
		id := order.Uint64(list[8*i:])
		if id < 2 || id >= c.meta.end {
			return fmt.Errorf("page %d of %d is said to be free", id, c.meta.end)
		}
		if by, twice := c.taken[id]; twice {
			return fmt.Errorf("page %d is said to be free, and is used by %s", id, by)
		}
		c.taken[id] = "the list of free pages"
	}
	return nil
}

// elementAt is where element i of a page begins.
func elementAt(body []byte, i, count int) (uint64, error) {
	if pageHeader+uint64(count)*elementSize > uint64(len(body)) {
		return 0, fmt.Errorf("it has %d elements in %d bytes", count, len(body))
	}
	return pageHeader + uint64(i)*elementSize, nil
}

// bytesAt are the size bytes that lie pos after base.
func bytesAt(body []byte, base uint64, pos, size uint32) ([]byte, error) {
	from := base + uint64(pos)
	if from+uint64(size) > uint64(len(body)) {
		return nil, fmt.Errorf("bytes %d to %d of a page with %d", from, from+uint64(size), len(body))
	}
	return body[from:][:size], nil
}
