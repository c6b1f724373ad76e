// Package embedtest is a service with an embedded DTLS server, and its test.
package embedtest

import "github.com/dtlsserver/dtlsserver"

// NewServer returns a server that sends back what devices send. Each has a key
// of its own.
func NewServer(keys map[string][]byte) *dtlsserver.Server {
	return &dtlsserver.Server{
		PSK: dtlsserver.StaticPSK(keys),
		Handler: dtlsserver.HandlerFuncs{
			OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) {
				s.Write(plainText)
			},
		},
	}
}
