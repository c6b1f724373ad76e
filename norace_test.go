//go:build !race

package dtlsserver

const raceEnabled = false
