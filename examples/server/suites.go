package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dtlsserver/dtlsserver"
)

// suites are the names of the library's cipher suites, in its order. Package
// crypto/tls has names for a few of them only.
var suites = []named[uint16]{
	{"TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256", 0xd001},
	{"TLS_ECDHE_PSK_WITH_AES_256_GCM_SHA384", 0xd002},
	{"TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256", 0xccac},
	{"TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256", 0xd005},
	{"TLS_ECDHE_PSK_WITH_AES_128_CCM_8_SHA256", 0xd003},
	{"TLS_PSK_WITH_AES_128_GCM_SHA256", 0x00a8},
	{"TLS_PSK_WITH_AES_256_GCM_SHA384", 0x00a9},
	{"TLS_PSK_WITH_CHACHA20_POLY1305_SHA256", 0xccab},
	{"TLS_PSK_WITH_AES_128_CCM", 0xc0a4},
	{"TLS_PSK_WITH_AES_256_CCM", 0xc0a5},
	{"TLS_PSK_WITH_AES_128_CCM_8", 0xc0a8},
	{"TLS_PSK_WITH_AES_256_CCM_8", 0xc0a9},
	{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xc02b},
	{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xc02c},
	{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xc02f},
	{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xc030},
	{"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca9},
	{"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca8},
	{"TLS_ECDHE_ECDSA_WITH_AES_128_CCM", 0xc0ac},
	{"TLS_ECDHE_ECDSA_WITH_AES_256_CCM", 0xc0ad},
	{"TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8", 0xc0ae},
	{"TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8", 0xc0af},
}

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
