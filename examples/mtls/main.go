// Mtls shows mutual authentication: a server and a client, each with a certificate,
// trust a common authority and no other.
//
//	go run ./examples/mtls
//
// All three are in this process, and their keys exist in memory only. A service
// would read its certificate with tls.LoadX509KeyPair instead.
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
	"strings"
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

	server := newServer(serverCert, pool, stdout)
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

// newServer returns a server that clients trust by its certificate, and that
// trusts sensors with certificates of the authorities.
func newServer(certificate tls.Certificate, authorities *x509.CertPool, stdout io.Writer) *dtlsserver.Server {
	return &dtlsserver.Server{
		Certificates:     []tls.Certificate{certificate},
		ClientAuth:       tls.RequireAndVerifyClientCert,
		ClientCAs:        authorities,
		VerifyConnection: onlySensors,
		Handler: dtlsserver.HandlerFuncs{
			OnInfo: func(e dtlsserver.Event) {
				if e.Kind == dtlsserver.KindHandshakeComplete {
					client := e.Session.ConnectionState().PeerCertificates[0]
					fmt.Fprintf(stdout, "%q has connected\n", client.Subject.CommonName)
				}
			},
			OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) { s.Write(plainText) },
		},
	}
}

// onlySensors lets in clients whose certificate is that of a sensor. The server
// asks it last, when the certificate is verified. One that takes pre-shared keys
// too asks it about their clients, which have no certificate.
func onlySensors(_ context.Context, req *dtlsserver.VerifyRequest) error {
	cs := req.State
	if len(cs.PeerCertificates) == 0 {
		return errors.New("a client without certificate")
	}
	if name := cs.PeerCertificates[0].Subject.CommonName; !strings.HasPrefix(name, "sensor-") {
		return fmt.Errorf("%q is no sensor", name)
	}
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
