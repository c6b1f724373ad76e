package dtlsservertest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// wantIs: the error is the target, or wraps it.
func wantIs(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("the error is %v, want %v", err, target)
	}
}

// TestClientConn: the errors of a client are those of a net.Conn.
func TestClientConn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := startOn(t, NewNetwork(t, Link{}), echo)
		client := server.Dial()
		want(t, client.RemoteAddr().String(), server.Addr().String())
		want(t, client.LocalAddr().String(), client.Session().RemoteAddr().String())

		b := make([]byte, 3)
		client.Write([]byte("hello"))
		n, err := client.Read(b)
		want(t, string(b[:n]), "hel")
		wantIs(t, err, io.ErrShortBuffer)
		want(t, client.Ask("the next"), "the next")

		client.SetReadDeadline(time.Now().Add(time.Second))
		_, err = client.Read(b)
		wantIs(t, err, os.ErrDeadlineExceeded)
		client.SetDeadline(time.Now().Add(-time.Second))
		n, err = client.Write(b)
		want(t, n, 0)
		wantIs(t, err, os.ErrDeadlineExceeded)
		client.SetDeadline(time.Time{})
		client.SetWriteDeadline(time.Now().Add(time.Second))
		want(t, client.Ask("again"), "again")

		waiting := make(chan error)
		go func() {
			_, err := client.Read(b)
			waiting <- err
		}()
		synctest.Wait()
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		want(t, <-waiting, net.ErrClosed)
		_, err = client.Read(b)
		want(t, err, net.ErrClosed)
		_, err = client.Write(b)
		want(t, err, net.ErrClosed)
		want(t, client.Close(), net.ErrClosed)

		client = server.Dial()
		client.Session().Close()
		_, err = client.Read(b)
		want(t, err, io.EOF)
		_, err = client.Write(b)
		want(t, err, net.ErrClosed)
	})
}

// TestClientConfig: what a configuration says is what the server gets, and what
// makes it refuse the client, or the client the server, is in the error.
func TestClientConfig(t *testing.T) {
	t.Parallel()
	ca := NewAuthority(t)
	own := ca.Issue("sensor-1")
	expired := ca.IssueTemplate(&x509.Certificate{DNSNames: []string{"server.test"}, NotAfter: time.Unix(1, 0)})
	byKey := func(change func(*ClientConfig)) *ClientConfig {
		config := &ClientConfig{Identity: "me", Key: []byte("key")}
		change(config)
		return config
	}
	byCert := func(change func(*ClientConfig)) *ClientConfig {
		config := &ClientConfig{RootCAs: ca.Pool, ServerName: "server.test"}
		change(config)
		return config
	}
	isAlert := func(name string) func(error) bool {
		return func(err error) bool {
			var alert *dtlsserver.AlertError
			return errors.As(err, &alert) && alert.Name() == name && !alert.Sent
		}
	}
	as := func(target any) func(error) bool {
		return func(err error) bool { return errors.As(err, target) }
	}
	says := func(text string) func(error) bool {
		return func(err error) bool { return strings.Contains(err.Error(), text) }
	}
	atOnce := func(err error) bool { return !errors.Is(err, context.DeadlineExceeded) }
	none := func(*ClientConfig) {}
	tests := []struct {
		name    string
		config  *ClientConfig
		got     func(dtlsserver.ConnectionState) bool // nil: the client does not connect
		refused func(error) bool
	}{
		{"key", byKey(none), func(s dtlsserver.ConnectionState) bool { return s.PSKIdentity == "me" && s.ServerName == "" }, nil},
		{"key and the rest", byKey(func(c *ClientConfig) {
			c.ServerName, c.RootCAs, c.Certificate = "a.test", x509.NewCertPool(), own
		}), func(s dtlsserver.ConnectionState) bool { return s.ServerName == "a.test" && s.PeerCertificates == nil }, nil},
		{"suites for keys", byKey(func(c *ClientConfig) { c.CipherSuites = []uint16{0xc0a9, 0xc02b} }),
			func(s dtlsserver.ConnectionState) bool { return s.CipherSuite == 0xc0a9 }, nil},
		{"suites for certificates", byCert(func(c *ClientConfig) { c.CipherSuites = []uint16{0xc0ac, 0x00a8} }),
			func(s dtlsserver.ConnectionState) bool { return s.CipherSuite == 0xc0ac }, nil},
		{"protocols", byKey(func(c *ClientConfig) { c.NextProtos = []string{"x", "coap"} }),
			func(s dtlsserver.ConnectionState) bool { return s.NegotiatedProtocol == "coap" }, nil},
		{"no certificate", byCert(none), func(s dtlsserver.ConnectionState) bool {
			return s.ServerName == "server.test" && s.PeerCertificates == nil && s.PSKIdentity == ""
		}, nil},
		{"certificate", byCert(func(c *ClientConfig) { c.Certificate = own }), func(s dtlsserver.ConnectionState) bool {
			return len(s.PeerCertificates) == 1 && s.PeerCertificates[0].Subject.CommonName == "sensor-1"
		}, nil},
		{"address", byCert(func(c *ClientConfig) { c.ServerName = "192.0.2.7" }),
			func(s dtlsserver.ConnectionState) bool { return s.ServerName == "" }, nil},
		{"any name", byCert(func(c *ClientConfig) { c.ServerName = "" }),
			func(s dtlsserver.ConnectionState) bool { return s.ServerName == "" }, nil},

		{"identity without key", &ClientConfig{Identity: "me"}, nil, says("a client with an Identity needs a Key")},
		{"unknown suite", byKey(func(c *ClientConfig) { c.CipherSuites = []uint16{0xfafa} }), nil, atOnce},
		{"no suite for the credentials", byKey(func(c *ClientConfig) { c.CipherSuites = []uint16{0xc02b} }), nil, atOnce},
		{"no suite of the server", byKey(func(c *ClientConfig) { c.CipherSuites = []uint16{0x00ae} }), nil, isAlert("handshake_failure")},
		{"no protocol of the server", byKey(func(c *ClientConfig) { c.NextProtos = []string{"x"} }), nil, isAlert("no_application_protocol")},
		{"another name", byCert(func(c *ClientConfig) { c.ServerName = "another.test" }), nil, as(new(x509.HostnameError))},
		{"another address", byCert(func(c *ClientConfig) { c.ServerName = "192.0.2.8" }), nil, as(new(x509.HostnameError))},
		{"no authority", new(ClientConfig), nil, as(new(x509.UnknownAuthorityError))},
		{"certificate of another", byCert(func(c *ClientConfig) { c.Certificate = NewAuthority(t).Issue("sensor-1") }), nil, isAlert("unknown_ca")},
		{"expired", byCert(func(c *ClientConfig) { c.Certificate = expired }), nil, isAlert("certificate_expired")},
		{"wrong key", byKey(func(c *ClientConfig) { c.Key = []byte("guessed") }), nil,
			func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := NewUnstartedServer(t, &dtlsserver.Server{
					PSK:          dtlsserver.StaticPSK(map[string][]byte{"me": []byte("key")}),
					Certificates: []tls.Certificate{ca.Issue("server.test", "192.0.2.7")},
					ClientAuth:   tls.VerifyClientCertIfGiven,
					ClientCAs:    ca.Pool,
					NextProtos:   []string{"coap"},
				})
				server.Network = NewNetwork(t, Link{})
				server.Start()
				client, err := server.DialContext(t.Context(), tt.config)
				switch {
				case tt.got != nil && err != nil:
					t.Error(err)
				case tt.got != nil:
					if state := client.Session().ConnectionState(); !tt.got(state) {
						t.Errorf("the server got %+v", state)
					}
				case err == nil:
					t.Error("the client has connected")
				case !tt.refused(err):
					t.Errorf("the error is %v", err)
				}
			})
		})
	}
}

// TestRetransmitTimeout: a client repeats its flight when it is told to.
func TestRetransmitTimeout(t *testing.T) {
	t.Parallel()
	for timeout, n := range map[time.Duration]uint64{0: 10, 100 * time.Millisecond: 100, 4 * time.Second: 3} {
		synctest.Test(t, func(t *testing.T) {
			server := startOn(t, NewNetwork(t, Link{Loss: 1}), nil)
			config := server.ClientConfig()
			config.RetransmitTimeout = timeout
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second-time.Nanosecond)
			defer cancel()
			_, err := server.DialContext(ctx, config)
			wantIs(t, err, context.DeadlineExceeded)
			want(t, server.Network.Stats().Sent, n)
		})
	}
}

// TestConnect: clients of servers that are not this package's.
func TestConnect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := NewNetwork(t, Link{MTU: 300})
		ca := NewAuthority(t)
		server := &dtlsserver.Server{
			Handler:      echo,
			Certificates: []tls.Certificate{ca.Issue("server.test")},
			ListenPacket: network.ListenPacket,
			MTU:          300,
		}
		if err := server.Listen("udp", "192.0.2.1:4433"); err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		dial := func() net.Conn {
			socket, err := network.Dial("udp", "192.0.2.1:4433")
			if err != nil {
				t.Fatal(err)
			}
			return socket
		}

		socket := dial()
		client, err := Connect(t.Context(), socket, &ClientConfig{RootCAs: ca.Pool, Certificate: ca.Issue("me")})
		if err != nil {
			t.Fatal(err)
		}
		want(t, client.LocalAddr(), socket.LocalAddr())
		io.WriteString(client, "hello")
		b := make([]byte, 100)
		n, err := client.Read(b)
		if err != nil || string(b[:n]) != "hello" {
			t.Errorf("Read: %q, %v", b[:n], err)
		}
		client.Close()
		want(t, socket.Close(), net.ErrClosed)
		synctest.Wait()
		want(t, server.Stats().Sessions, 0)

		for _, config := range []*ClientConfig{nil, {Identity: "me"}, {CipherSuites: []uint16{0}}} {
			socket := dial()
			if client, err := Connect(t.Context(), socket, config); client != nil || err == nil || !strings.HasPrefix(err.Error(), "dtlsservertest: ") {
				t.Errorf("%+v: %v, %v", config, client, err)
			}
			want(t, socket.Close(), net.ErrClosed)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = Connect(ctx, dial(), nil)
		wantIs(t, err, context.Canceled)
	})
}
