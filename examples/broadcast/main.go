// Broadcast forwards what one client sends to all other connected clients, like a
// chat room.
//
//	go run ./examples/broadcast
//	openssl s_client -dtls1_2 -connect 127.0.0.1:4433 -psk_identity alice -psk 1a2b3c4d5e6f
//	openssl s_client -dtls1_2 -connect 127.0.0.1:4433 -psk_identity bob -psk 6f5e4d3c2b1a
package main

import (
	"fmt"
	"log"

	"github.com/dtlsserver/dtlsserver"
)

func main() {
	server := newServer()
	if err := server.Listen("udp", "127.0.0.1:4433"); err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", server.Addr())
	select {} // the server runs until the program ends
}

// newServer returns a server whose handler knows it: Sessions are those to tell.
func newServer() *dtlsserver.Server {
	server := &dtlsserver.Server{
		PSK: dtlsserver.StaticPSK(map[string][]byte{
			"alice": []byte("\x1a\x2b\x3c\x4d\x5e\x6f"),
			"bob":   []byte("\x6f\x5e\x4d\x3c\x2b\x1a"),
		}),
	}
	server.Handler = dtlsserver.HandlerFuncs{
		OnInfo: func(e dtlsserver.Event) {
			switch e.Kind {
			case dtlsserver.KindHandshakeComplete:
				broadcast(server, e.Session, "%s has come", e.Identity)
			case dtlsserver.KindSessionClosed:
				broadcast(server, e.Session, "%s has gone", e.Identity)
			}
		},
		OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) {
			broadcast(server, s, "%s: %q", s.Identity().Value, plainText)
		},
	}
	return server
}

// broadcast sends a message to all clients but the one that it is from. Write
// does not wait for any of them, so it may be called on the serving loop; what
// cannot be sent is lost, as any datagram may be. What clients say is quoted,
// for others have it on a terminal.
func broadcast(server *dtlsserver.Server, from *dtlsserver.Session, format string, args ...any) {
	for session := range server.Sessions() {
		if session != from {
			_, _ = fmt.Fprintf(session, format, args...)
		}
	}
}
