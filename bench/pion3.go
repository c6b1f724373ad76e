//go:build linux

package main

import (
	"net"
	"syscall"

	"github.com/pion/dtls/v3"
)

// servePion3 serves with pion/dtls v3.
func servePion3(c credentials) (service, error) {
	certificate, err := c.load()
	if err != nil {
		return nil, err
	}
	l, err := dtls.ListenWithOptions("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)},
		dtls.WithPSK(func([]byte) ([]byte, error) { return []byte(pskKey), nil }),
		dtls.WithCertificates(certificate),
		dtls.WithCipherSuites(dtls.TLS_PSK_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
		dtls.WithListenConfig(net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			if controlErr := raw.Control(func(fd uintptr) { err = setBuffers(int(fd)) }); controlErr != nil {
				return controlErr
			}
			return err
		}}))
	if err != nil {
		return nil, err
	}
	return servePion(l, func(conn net.Conn) (net.Conn, error) {
		return conn, conn.(*dtls.Conn).Handshake()
	}), nil
}
