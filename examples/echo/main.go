// Echo sends back what clients send.
//
//	go run ./examples/echo
//	openssl s_client -dtls1_2 -connect 127.0.0.1:4433 -psk_identity sensor-1 -psk 1a2b3c4d5e6f
package main

import (
	"log"
	"log/slog"

	"github.com/dtlsserver/dtlsserver"
)

func main() {
	server := newServer(dtlsserver.LogHandler(slog.Default()))
	if err := server.Listen("udp", "127.0.0.1:4433"); err != nil {
		log.Fatal(err)
	}
	select {} // the server runs until the program ends
}

// newServer returns a server that logs events to logger.
func newServer(logger dtlsserver.EventHandler) *dtlsserver.Server {
	return &dtlsserver.Server{
		// A key in a program is for trying it out: see examples/psksql.
		PSK:     dtlsserver.StaticPSK(map[string][]byte{"sensor-1": []byte("\x1a\x2b\x3c\x4d\x5e\x6f")}),
		Handler: echo{logger},
	}
}

// echo is a handler for messages, which leaves events to another.
type echo struct{ dtlsserver.EventHandler }

// DatagramReceived sends a message back. If that fails the reply is lost, as any
// datagram may be, and the server reports it in an event.
func (echo) DatagramReceived(s *dtlsserver.Session, _, plainText []byte) {
	_, _ = s.Write(plainText)
}
