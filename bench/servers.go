//go:build linux

package main

// goServers are the servers written in Go.
var goServers = map[string]func(credentials) (service, error){
	"ours":         serveOurs,
	"attacked":     serveAttacked,
	"pion2":        servePion2,
	"pion3":        servePion3,
	"echo":         serveEcho,
	"echo-batched": func(credentials) (service, error) { return serveBatched(false) },
	"echo-floor":   func(credentials) (service, error) { return serveBatched(true) },
}
