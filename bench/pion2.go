//go:build linux

package main

import (
	"crypto/tls"
	"net"

	"github.com/pion/dtls/v2"
	"github.com/pion/dtls/v2/pkg/protocol"
	"github.com/pion/dtls/v2/pkg/protocol/recordlayer"
	"github.com/pion/transport/v2/udp"
)

// servePion2 serves with pion/dtls v2. Its listener runs a handshake in Accept,
// where one client that falls silent holds up all others, so its parts are put
// together as Listen does it, with a goroutine for each client.
func servePion2(c credentials) (service, error) {
	certificate, err := c.load()
	if err != nil {
		return nil, err
	}
	config := &dtls.Config{
		PSK:          func([]byte) ([]byte, error) { return []byte(pskKey), nil },
		Certificates: []tls.Certificate{certificate},
		CipherSuites: []dtls.CipherSuiteID{
			dtls.TLS_PSK_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		},
	}
	lc := udp.ListenConfig{
		Backlog:         pionBacklog,
		ReadBufferSize:  socketBuffer,
		WriteBufferSize: socketBuffer,
		AcceptFilter: func(packet []byte) bool {
			records, err := recordlayer.UnpackDatagram(packet)
			if err != nil || len(records) == 0 {
				return false
			}
			h := &recordlayer.Header{}
			return h.Unmarshal(records[0]) == nil && h.ContentType == protocol.ContentTypeHandshake
		},
	}
	l, err := lc.Listen("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	return servePion(l, func(conn net.Conn) (net.Conn, error) { return dtls.Server(conn, config) }), nil
}
