//go:build race

package tap

// underRace says that sync.Pool drops at random what it is given, so that allocations cannot be counted.
const underRace = true
