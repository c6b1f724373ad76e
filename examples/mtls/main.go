// Mtls shows mutual authentication: a server and a client, each with a
// certificate, that trust one authority and nobody else.
//
//	go run ./examples/mtls
//
// Both are in this process, and so is the authority: its keys exist in memory
// only. A service reads its certificate with tls.LoadX509KeyPair instead.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/pion/dtls/v2"

	"github.com/dtlsserver/dtlsserver"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ca, err := issue("Example CA", nil)
	if err != nil {
		return err
	}
	serverCert, err := issue("localhost", &ca)
	if err != nil {
		return err
	}
	clientCert, err := issue("sensor-1", &ca)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)

	server := &dtlsserver.Server{
		Certificates: []tls.Certificate{serverCert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		VerifyConnection: func(cs dtlsserver.ConnectionState) error {
			// With a PSK as well there would be clients without a certificate.
			if len(cs.PeerCertificates) == 0 || cs.PeerCertificates[0].Subject.CommonName != "sensor-1" {
				return errors.New("not the sensor")
			}
			return nil
		},
		Handler: dtlsserver.HandlerFuncs{
			OnInfo: func(e dtlsserver.Event) {
				if e.Kind == dtlsserver.KindHandshakeComplete {
					client := e.Session.ConnectionState().PeerCertificates[0]
					fmt.Fprintf(stdout, "%q has connected\n", client.Subject.CommonName)
				}
			},
			OnDatagram: func(s *dtlsserver.Session, _, plainText []byte) { s.Write(plainText) },
		},
	}
	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		return err
	}
	echo, err := ask(ctx, server.Addr(), "hello", &dtls.Config{
		Certificates:         []tls.Certificate{clientCert},
		RootCAs:              pool,
		ServerName:           "localhost",
		ExtendedMasterSecret: dtls.RequireExtendedMasterSecret,
	})
	// After Shutdown the handler writes to stdout no more.
	if err := errors.Join(err, server.Shutdown(ctx)); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "the client has received %q\n", echo)
	return nil
}

// ask connects a client, sends a message and returns the reply.
func ask(ctx context.Context, server netip.AddrPort, message string, config *dtls.Config) (string, error) {
	client, err := dtls.DialWithContext(ctx, "udp", net.UDPAddrFromAddrPort(server), config)
	if err != nil {
		return "", err
	}
	defer client.Close()
	deadline, _ := ctx.Deadline()
	_, err = client.Write([]byte(message))
	if err := errors.Join(err, client.SetDeadline(deadline)); err != nil {
		return "", err
	}
	buf := make([]byte, len(message))
	n, err := client.Read(buf)
	return string(buf[:n]), err
}
