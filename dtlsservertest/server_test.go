package dtlsservertest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

var echo = dtlsserver.HandlerFuncs{
	OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) { s.Write(plainText) },
}

func want[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNewServer(t *testing.T) {
	t.Parallel()
	server := NewServer(t, echo)
	client := server.Dial()
	for _, message := range []string{"hello", "", strings.Repeat("x", 8000)} {
		want(t, client.Ask(message), message)
	}
	e := server.Events.Want(dtlsserver.KindHandshakeComplete, "after Dial")
	want(t, e.Identity, server.Identity)
	want(t, e.Session, client.Session())
	m := server.Events.WantMessage("hello", "after Ask")
	want(t, m.Session, e.Session)
	want(t, m.CipherText[0], 23) // application_data

	if session, ok := server.SessionByAddr(client.Session().RemoteAddr(), client.Session().LocalAddr()); !ok || session != client.Session() {
		t.Error("the client's session is not among those of the server")
	}
	client.Session().Write([]byte("pushed"))
	want(t, client.Receive(), "pushed")

	client.Close()
	e = server.Events.Want(dtlsserver.KindSessionClosed, "after the client's Close")
	want(t, e.Err, dtlsserver.ErrPeerClosed)
	server.Events.WantNone(dtlsserver.KindHandshakeFailed, "in the end")
	server.Close()
	server.Events.Want(dtlsserver.KindStopped, "after Close")
	want(t, server.IsListening(), false)
	server.Close() // again does nothing
}

// TestClientsCloseTells: the server is told, however the client's goroutines run.
func TestClientsCloseTells(t *testing.T) {
	t.Parallel()
	server := NewServer(t, nil)
	for range 50 {
		client := server.Dial()
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		want(t, server.Events.Want(dtlsserver.KindSessionClosed, "after Close").Err, dtlsserver.ErrPeerClosed)
		if err := client.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close again: %v", err)
		}
	}
}

// TestServersCloseTells: the client is told, and its own Close takes no time then.
func TestServersCloseTells(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := startOn(t, NewNetwork(t, Link{}), nil)
		client := server.Dial()
		server.Server.Close()
		start := time.Now()
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Read: %v", err)
		}
		synctest.Wait()
		client.Close()
		want(t, time.Since(start), 0)
	})
}

// TestNoHandler: a server without handler is one all the same.
func TestNoHandler(t *testing.T) {
	t.Parallel()
	server := NewServer(t, nil)
	if _, err := server.Dial().Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	server.Events.WantMessage("hello", "after Write")
	want(t, len(server.Events.Messages()), 1)
	want(t, server.Events.All()[0].Kind, dtlsserver.KindListening)
}

func TestStartServer(t *testing.T) {
	t.Parallel()
	keys := map[string][]byte{"sensor-1": []byte("a key of its own"), "sensor-2": []byte("another key")}
	server := StartServer(t, &dtlsserver.Server{Handler: echo, PSK: dtlsserver.StaticPSK(keys)})
	for identity, key := range keys {
		want(t, server.DialPSK(identity, key).Ask("hello"), "hello")
	}
	random := StartServer(t, &dtlsserver.Server{Handler: echo})
	want(t, random.Dial().Ask("hello"), "hello")
	if random.Identity == server.Identity || string(random.Key) == string(server.Key) || len(random.Key) != 32 {
		t.Error("the credentials are not random")
	}
}

// TestListeningServer: a server that listens already is as good as another, with
// credentials of all kinds and at all addresses.
func TestListeningServer(t *testing.T) {
	t.Parallel()
	key := []byte("a key of its own")
	ca := NewAuthority(t)
	for _, address := range []string{"127.0.0.1:0", ":0"} {
		server := NewUnstartedServer(t, &dtlsserver.Server{
			PSK:          dtlsserver.StaticPSK(map[string][]byte{"sensor-1": key}),
			Certificates: []tls.Certificate{ca.Issue(serverName)},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    ca.Pool,
		})
		server.Authority = ca
		server.Handler = dtlsserver.MultiHandler(echo, server.Events)
		if err := server.Listen("udp", address); err != nil {
			t.Fatal(err)
		}
		at := server.Addr()
		server.Start()
		want(t, server.Addr(), at)
		for _, client := range []*Client{server.DialPSK("sensor-1", key), server.Dial()} {
			want(t, client.Ask("hello"), "hello")
			e := server.Events.Want(dtlsserver.KindHandshakeComplete, "after Dial")
			want(t, client.Session(), e.Session)
		}
		server.Close()
		want(t, server.IsListening(), false)
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	for _, auth := range []tls.ClientAuthType{tls.NoClientCert, tls.RequestClientCert, tls.RequireAndVerifyClientCert} {
		t.Run(auth.String(), func(t *testing.T) {
			t.Parallel()
			server := NewUnstartedServer(t, &dtlsserver.Server{Handler: echo})
			server.Authority = NewAuthority(t)
			server.ClientAuth = auth
			server.Start()
			client := server.Dial()
			want(t, client.Ask("hello"), "hello")
			name := ""
			for _, cert := range client.Session().ConnectionState().PeerCertificates {
				name += cert.Subject.CommonName
			}
			want(t, name != "", auth != tls.NoClientCert)
			if name != "" {
				want(t, name, "client")
			}
		})
	}
}

// TestOwnCertificate: what the caller has set stays; who has no certificate of
// the right authority is refused.
func TestOwnCertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, stranger := NewAuthority(t), NewAuthority(t)
		server := NewUnstartedServer(t, &dtlsserver.Server{Handler: echo})
		server.Network = NewNetwork(t, Link{})
		server.Authority = stranger
		server.Certificates = []tls.Certificate{ca.Issue("server.test", "192.0.2.7")}
		server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool
		server.Start()
		config := func(ca, own *Authority, name string) *ClientConfig {
			return &ClientConfig{RootCAs: ca.Pool, ServerName: name, Certificate: own.Issue("sensor")}
		}
		client, err := server.DialContext(t.Context(), config(ca, ca, "server.test"))
		if err != nil {
			t.Fatal(err)
		}
		want(t, client.Ask("hello"), "hello")
		for name, c := range map[string]*ClientConfig{
			"server of another authority": config(stranger, ca, "server.test"),
			"client of another authority": config(ca, stranger, "server.test"),
			"another name":                config(ca, ca, "another.test"),
		} {
			if client, err := server.DialContext(t.Context(), c); err == nil {
				t.Errorf("%s: connected, %v", name, client.LocalAddr())
			}
			server.Events.Want(dtlsserver.KindHandshakeFailed, name)
		}
	})
}

func TestAuthority(t *testing.T) {
	t.Parallel()
	ca := NewAuthority(t)
	pair, err := tls.LoadX509KeyPair(ca.IssueFiles("server.test", "::1"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) { // where it is the year 2000
		for _, name := range []string{"server.test", "::1"} {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool, DNSName: name}); err != nil {
				t.Error(err)
			}
		}
	})
	file := ca.File()
	if !strings.HasSuffix(file, ".pem") {
		t.Errorf("the file is %q", file)
	}
	template := &x509.Certificate{DNSNames: []string{"old.test"}, NotAfter: time.Unix(1, 0)}
	_, err = ca.IssueTemplate(template).Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool})
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("an expired certificate: %v", err)
	}
	if template.ExtKeyUsage != nil || !template.NotBefore.IsZero() {
		t.Error("the template was changed")
	}
}

// TestNetworks: clients connect and are answered on networks of all kinds, in no
// time.
func TestNetworks(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		link Link
		saw  func(NetworkStats) uint64 // that which the link does
	}{
		{"perfect", Link{}, func(s NetworkStats) uint64 { return s.Sent }},
		{"slow", Link{Delay: 300 * time.Millisecond}, func(s NetworkStats) uint64 { return s.Sent }},
		{"lossy", Link{Loss: 0.3, Delay: 20 * time.Millisecond}, func(s NetworkStats) uint64 { return s.Lost }},
		{"repeating", Link{Duplicate: 0.5, Delay: 20 * time.Millisecond}, func(s NetworkStats) uint64 { return s.Duplicated }},
		{"reordering", Link{Reorder: 0.5, Delay: 20 * time.Millisecond}, func(s NetworkStats) uint64 { return s.Reordered }},
		{"reordering at once", Link{Reorder: 0.5}, func(s NetworkStats) uint64 { return s.Reordered }},
		{"narrow", Link{MTU: 300}, func(s NetworkStats) uint64 { return s.TooLong }},
		{"all of it", Link{Loss: 0.3, Duplicate: 0.2, Reorder: 0.3, Delay: 50 * time.Millisecond, MTU: 300, Seed: 1}, func(s NetworkStats) uint64 { return min(s.Lost, s.TooLong) }},
	}
	for _, tt := range tests {
		for _, certificates := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/certificates=%v", tt.name, certificates), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					server := NewUnstartedServer(t, &dtlsserver.Server{Handler: echo})
					server.Network = NewNetwork(t, tt.link)
					server.MTU = tt.link.MTU
					if certificates {
						server.Authority = NewAuthority(t)
						server.ClientAuth = tls.RequireAndVerifyClientCert
					}
					server.Start()
					client := server.Dial()
					// Datagrams may be lost: ask until an answer comes.
					answers := make(chan string)
					var group sync.WaitGroup
					group.Go(func() {
						defer close(answers)
						b := make([]byte, 100)
						n, err := client.Read(b)
						if err != nil {
							t.Error(err)
						}
						answers <- string(b[:n])
					})
					for asked := false; !asked; {
						client.Write([]byte("hello"))
						select {
						case answer := <-answers:
							want(t, answer, "hello")
							asked = true
						case <-time.After(time.Second):
						}
					}
					group.Wait()
					client.Write(make([]byte, 500)) // too long for some
					synctest.Wait()
					if stats := server.Network.Stats(); tt.saw(stats) == 0 {
						t.Errorf("the network did not do it: %+v", stats)
					}
					server.Events.Want(dtlsserver.KindHandshakeComplete, "after Dial")
				})
			})
		}
	}
}

// TestSetLink: a network that breaks and heals.
func TestSetLink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := NewUnstartedServer(t, &dtlsserver.Server{Handler: echo})
		server.Network = NewNetwork(t, Link{Delay: time.Millisecond})
		server.IdleTimeout = time.Hour
		server.Start()
		client := server.Dial()
		server.Network.SetLink(Link{Loss: 1})
		client.Write([]byte("lost"))
		time.Sleep(time.Minute)
		want(t, len(server.Events.Messages()), 0)
		server.Network.SetLink(Link{})
		want(t, client.Ask("hello"), "hello")
		start := time.Now()
		e := server.Events.Want(dtlsserver.KindHandshakeComplete, "after Dial")
		want(t, time.Since(start), 0)
		time.Sleep(time.Hour)
		synctest.Wait()
		want(t, server.Events.Want(dtlsserver.KindSessionClosed, "after an hour").Err, dtlsserver.ErrIdleTimeout)
		want(t, context.Cause(e.Session.Context()), dtlsserver.ErrIdleTimeout)
	})
}

// TestWrongKey: a client that is refused is no failure of the test.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := NewUnstartedServer(t, &dtlsserver.Server{})
		server.Network = NewNetwork(t, Link{Delay: 10 * time.Millisecond})
		server.Start()
		config := server.ClientConfig()
		config.Key = []byte("guessed")
		if _, err := server.DialContext(t.Context(), config); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("DialContext: %v", err)
		}
		want(t, server.Events.Want(dtlsserver.KindHandshakeFailed, "after Dial").Err, dtlsserver.ErrWrongPSK)
	})
}

// TestManyClients: those of one server have an address of their own each, and may
// connect at the same time.
func TestManyClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := NewUnstartedServer(t, &dtlsserver.Server{Handler: echo})
		server.Network = NewNetwork(t, Link{Delay: 10 * time.Millisecond})
		server.Start()
		const n = 300
		var group sync.WaitGroup
		for range n {
			group.Go(func() {
				if _, err := server.DialContext(t.Context(), nil); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		hosts := make(map[string]bool)
		for s := range server.Sessions() {
			hosts[s.RemoteAddr().Addr().String()] = true
		}
		want(t, len(hosts), n)
	})
}

// TestDialUDP: what is no client's is told.
func TestDialUDP(t *testing.T) {
	t.Parallel()
	server := NewServer(t, nil)
	conn, err := server.DialUDP()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("no hello")); err != nil {
		t.Fatal(err)
	}
	want(t, server.Events.Want(dtlsserver.KindUnexpectedDatagram, "after Write").Remote.String(), conn.LocalAddr().String())
	server.Server.Close()
	if _, err := server.DialUDP(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
