package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dtlsserver/dtlsserver"
)

// suites are the library's cipher suites by name, in its order.
var suites = func() (all []named[uint16]) {
	for _, id := range dtlsserver.DefaultCipherSuites() {
		all = append(all, named[uint16]{dtlsserver.CipherSuiteName(id), id})
	}
	return all
}()

// parseSuite parses the name or the number of a cipher suite.
func parseSuite(text string) (uint16, error) {
	if digits, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		id, err := strconv.ParseUint(digits, 16, 16)
		if err != nil || !slices.Contains(dtlsserver.DefaultCipherSuites(), uint16(id)) {
			return 0, fmt.Errorf("%q: no number of a cipher suite that is supported", text)
		}
		return uint16(id), nil
	}
	return oneOf(suites)(text)
}
