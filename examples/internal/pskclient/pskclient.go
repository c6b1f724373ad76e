// Package pskclient has the configuration of the examples' clients.
package pskclient

import "github.com/pion/dtls/v2"

// Config returns the configuration of a pion client with a pre-shared key.
func Config(identity string, key []byte) *dtls.Config {
	return &dtls.Config{
		PSK:             func([]byte) ([]byte, error) { return key, nil },
		PSKIdentityHint: []byte(identity), // pion's name for a client's identity
		CipherSuites: []dtls.CipherSuiteID{
			dtls.TLS_PSK_WITH_AES_128_GCM_SHA256,
			dtls.TLS_PSK_WITH_AES_128_CCM,
			dtls.TLS_PSK_WITH_AES_128_CCM_8,
		},
		ExtendedMasterSecret: dtls.RequireExtendedMasterSecret,
	}
}
