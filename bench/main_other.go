//go:build !linux

// Bench measures this library's server beside others. It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench needs Linux")
	os.Exit(1)
}
