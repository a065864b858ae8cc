//go:build !race

package tap

const underRace = false
