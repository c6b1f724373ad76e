// Cluster runs two servers with the same secrets, as they would run behind a load
// balancer that does not know DTLS. Its forwarder sends the first datagram of each
// client to server one and all others to server two, which accepts the cookie that
// server one made.
//
//	go run ./examples/cluster
//	openssl s_client -dtls1_2 -connect 127.0.0.1:4433 -psk_identity sensor-1 -psk 1a2b3c4d5e6f
//
// Each server resumes sessions of the other, with session tickets:
//
//	openssl s_client -dtls1_2 -connect 127.0.0.1:4434 -psk_identity sensor-1 -psk 1a2b3c4d5e6f -cipher ECDHE-PSK-CHACHA20-POLY1305 -sess_out session.pem
//	openssl s_client -dtls1_2 -connect 127.0.0.1:4435 -psk_identity sensor-1 -psk 1a2b3c4d5e6f -cipher ECDHE-PSK-CHACHA20-POLY1305 -sess_in session.pem
package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net"

	"github.com/dtlsserver/dtlsserver"
)

func main() {
	// Servers on several machines are given their secrets, say by a file.
	var cookieSecret, ticketKey [32]byte
	rand.Read(cookieSecret[:])
	rand.Read(ticketKey[:])
	var servers [2]net.Addr
	for i, name := range []string{"one", "two"} {
		server, err := newServer(name, cookieSecret[:], ticketKey)
		if err == nil {
			err = server.Listen("udp", fmt.Sprintf("127.0.0.1:%d", 4434+i))
		}
		if err != nil {
			log.Fatal(err)
		}
		servers[i] = net.UDPAddrFromAddrPort(server.Addr())
	}
	front, err := net.ListenPacket("udp", "127.0.0.1:4433")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(forward(front, servers[0], servers[1]))
}

// newServer returns a server that shares its secrets with others.
func newServer(name string, cookieSecret []byte, ticketKey [32]byte) (*dtlsserver.Server, error) {
	verifier, err := dtlsserver.NewVerifier(cookieSecret)
	server := &dtlsserver.Server{
		Verifier: verifier,
		PSK:      dtlsserver.StaticPSK(map[string][]byte{"sensor-1": []byte("\x1a\x2b\x3c\x4d\x5e\x6f")}),
		Handler: dtlsserver.HandlerFuncs{
			OnInfo: func(e dtlsserver.Event) { log.Printf("%s: %v", name, e) },
			OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) {
				fmt.Fprintf(s, "%s has received %q, resumed: %t\n", name, plainText, s.ConnectionState().DidResume)
			},
		},
	}
	return server, errors.Join(err, server.SetSessionTicketKeys(ticketKey))
}

// forward sends the first datagram of each client to one server and all others to
// another, until front is closed. A cookie is bound to an address, so both see a
// client at the same one: that of a socket of its own, which is kept.
func forward(front net.PacketConn, first, others net.Addr) error {
	sockets := make(map[string]net.PacketConn) // by client
	b := make([]byte, 1<<16)
	for {
		n, client, err := front.ReadFrom(b)
		if err != nil {
			return err
		}
		to, socket := others, sockets[client.String()]
		if socket == nil {
			if socket, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
				return err
			}
			defer socket.Close()
			sockets[client.String()] = socket
			go answer(socket, front, client)
			to = first
		}
		_, _ = socket.WriteTo(b[:n], to) // what is not sent is lost, as datagrams may be
	}
}

// answer passes on what the servers send to a client.
func answer(socket, front net.PacketConn, client net.Addr) {
	b := make([]byte, 1<<16)
	for {
		n, _, err := socket.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = front.WriteTo(b[:n], client)
	}
}
