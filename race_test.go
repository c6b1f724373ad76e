//go:build race

package dtlsserver

const raceEnabled = true
