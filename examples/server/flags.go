package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/examples/internal/pskflag"
)

// options are what the flags say.
type options struct {
	addr   string
	server *dtlsserver.Server // without its Handler and its KeyLogWriter
	reply  func(s *dtlsserver.Session, plainText []byte)
	quiet  bool
	stats  time.Duration
	keyLog string
}

// credentials are the flags that say who may talk to whom, as they were given.
type credentials struct {
	psks, certs, keys    []string // each time that the flag was given
	clientCA, clientAuth string
}

// parse reads the flags. It reports what is wrong with them on stderr, where no
// part of a key is shown.
func parse(args []string, stderr io.Writer) (*options, error) {
	opts := &options{server: &dtlsserver.Server{}}
	var creds credentials
	var ciphers, curves, alpn, reply string

	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.addr, "addr", "127.0.0.1:4433", "listen on this UDP `address`")
	// Not parsed yet: package flag shows the values that it cannot set, and
	// these hold keys.
	flags.Func("psk", "accept this `IDENTITY=HEXKEY`; may be repeated; '' for none (default "+pskflag.Default+", or none with -cert)", appendTo(&creds.psks))
	flags.StringVar(&opts.server.PSKIdentityHint, "hint", "Qt DTLS example server", "send clients this `text` to help them choose their identity")
	flags.Func("cert", "authenticate with the certificate chain in this PEM `file`; needs -key", appendTo(&creds.certs))
	flags.Func("key", "the private key of -cert, in this PEM `file`", appendTo(&creds.keys))
	flags.StringVar(&creds.clientCA, "client-ca", "", "verify client certificates by the authorities in this PEM `file` (default those of the system)")
	flags.StringVar(&creds.clientAuth, "client-auth", "", "ask clients that connect by -cert for certificates of their own in this `mode`: "+names(clientAuths)+" (default none, or require-and-verify with -client-ca)")
	flags.StringVar(&ciphers, "ciphers", "", "allow this comma-separated `list` of cipher suites, the preferred first, by their IANA names or as numbers like 0xC02B (default all)")
	flags.StringVar(&curves, "curves", "", "allow this comma-separated `list` of ECDHE groups, the preferred first (default "+names(groups)+")")
	flags.StringVar(&alpn, "alpn", "", "speak this comma-separated `list` of application protocols, the preferred first")
	flags.StringVar(&reply, "reply", "ack", "answer each datagram with `ack or echo`")
	flags.BoolVar(&opts.quiet, "quiet", false, "print no events and no messages")
	flags.DurationVar(&opts.stats, "stats", 0, "print a line of figures to standard error each `duration`")
	flags.StringVar(&opts.keyLog, "keylog", "", "append the secrets of all sessions to this `file`, for packet analyzers")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}

	err := creds.apply(opts.server)
	if err == nil {
		opts.server.CipherSuites, err = parseList("-ciphers", ciphers, parseSuite)
	}
	if err == nil {
		opts.server.CurvePreferences, err = parseList("-curves", curves, oneOf(groups))
	}
	if err == nil {
		opts.server.NextProtos, err = parseList("-alpn", alpn, parseProtocol)
	}
	switch {
	case err != nil:
	case flags.NArg() > 0: // not shown: after -psk IDENTITY it may be a key
		err = fmt.Errorf("unexpected argument number %d, which is no flag", len(args)-flags.NArg()+1)
	case opts.stats < 0:
		err = fmt.Errorf("-stats %v is negative", opts.stats)
	case reply == "ack":
		opts.reply = acknowledge
	case reply == "echo":
		opts.reply = echo
	default:
		err = fmt.Errorf("-reply %q: want ack or echo", reply)
	}
	if err != nil {
		fmt.Fprintln(stderr, "server:", err)
		return nil, err
	}
	return opts, nil
}

// appendTo returns the function of a flag that keeps all its values.
func appendTo(values *[]string) func(string) error {
	return func(value string) error {
		*values = append(*values, value)
		return nil
	}
}

// apply sets the server's credentials, and what it asks of clients.
func (c *credentials) apply(server *dtlsserver.Server) error {
	psks, hasCert := c.psks, len(c.certs) > 0
	switch {
	case psks == nil && !hasCert:
		psks = []string{pskflag.Default}
	case len(psks) == 1 && psks[0] == "":
		psks = nil
	}
	keys := make(map[string][]byte)
	for i, psk := range psks {
		identity, key, err := pskflag.Parse(psk)
		if err != nil {
			return fmt.Errorf("-psk number %d: %w", i+1, err)
		}
		keys[identity] = key
	}
	if len(keys) > 0 {
		server.PSK = dtlsserver.StaticPSK(keys)
	}

	switch {
	case hasCert != (len(c.keys) > 0):
		return errors.New("-cert and -key need each other")
	case len(c.certs) > 1 || len(c.keys) > 1:
		return errors.New("-cert and -key cannot be repeated")
	case hasCert:
		cert, err := loadCertificate(c.certs[0], c.keys[0])
		if err != nil {
			return err
		}
		server.Certificates = []tls.Certificate{cert}
	case c.clientCA != "" || c.clientAuth != "": // clients have certificates where the server has one
		return errors.New("-client-ca and -client-auth need -cert")
	case server.PSK == nil:
		return errors.New("without -psk there must be -cert")
	}
	return c.applyClientAuth(server)
}

// applyClientAuth sets what the server asks of clients.
func (c *credentials) applyClientAuth(server *dtlsserver.Server) (err error) {
	if c.clientCA != "" {
		pem, err := readFile(c.clientCA)
		if err != nil {
			return fmt.Errorf("-client-ca: %w", err)
		}
		server.ClientAuth = tls.RequireAndVerifyClientCert
		server.ClientCAs = x509.NewCertPool()
		if !server.ClientCAs.AppendCertsFromPEM(pem) {
			return errors.New("-client-ca: no certificate in the file")
		}
	}
	if c.clientAuth != "" {
		if server.ClientAuth, err = oneOf(clientAuths)(c.clientAuth); err != nil {
			return fmt.Errorf("-client-auth %w", err)
		}
	}
	return nil
}

// loadCertificate reads a certificate and its key.
func loadCertificate(certFile, keyFile string) (tls.Certificate, error) {
	certPEM, err := readFile(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("-cert: %w", err)
	}
	keyPEM, err := readFile(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("-key: %w", err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("-cert and -key: %w", err)
	}
	return cert, nil
}

// readFile reads a file. Its errors do not show the name, in whose place a
// mistaken command line may have the key itself.
func readFile(name string) ([]byte, error) {
	content, err := os.ReadFile(name)
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return content, err
}

// named is a value that a flag has a name for.
type named[T any] struct {
	name  string
	value T
}

var clientAuths = []named[tls.ClientAuthType]{
	{"none", tls.NoClientCert},
	{"request", tls.RequestClientCert},
	{"require", tls.RequireAnyClientCert},
	{"verify-if-given", tls.VerifyClientCertIfGiven},
	{"require-and-verify", tls.RequireAndVerifyClientCert},
}

// groups has them in the library's order.
var groups = []named[tls.CurveID]{{"P-256", tls.CurveP256}, {"X25519", tls.X25519}, {"P-384", tls.CurveP384}}

// names lists what there is a name for.
func names[T any](all []named[T]) string {
	var list []string
	for _, n := range all {
		list = append(list, n.name)
	}
	return strings.Join(list, ",")
}

// oneOf returns the function that finds a value by its name.
func oneOf[T any](all []named[T]) func(name string) (T, error) {
	return func(name string) (value T, err error) {
		for _, n := range all {
			if n.name == name {
				return n.value, nil
			}
		}
		return value, fmt.Errorf("%q: want %s", name, names(all))
	}
}

// parseList parses the values of a comma-separated list. An empty list is nil.
func parseList[T any](flagName, list string, parse func(string) (T, error)) ([]T, error) {
	if list == "" {
		return nil, nil
	}
	var values []T
	for text := range strings.SplitSeq(list, ",") {
		value, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s %w", flagName, err)
		}
		values = append(values, value)
	}
	return values, nil
}

// parseProtocol checks the name of an application protocol (RFC 7301 section
// 3.1).
func parseProtocol(name string) (string, error) {
	if len(name) == 0 || len(name) > 255 {
		return "", fmt.Errorf("%q: a name has 1 to 255 bytes", name)
	}
	return name, nil
}
