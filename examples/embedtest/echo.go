// Package embedtest is a service with an embedded DTLS server, and its test.
package embedtest

import "github.com/dtlsserver/dtlsserver"

// NewServer returns a server that echoes what devices send. Each device has its
// own key.
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
