package dtlsserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
)

// manyNames are the names of a certificate that is small in bytes only.
func manyNames(c *x509.Certificate) {
	for range 2000 {
		c.URIs = append(c.URIs, &url.URL{Scheme: "a", Host: "b"})
	}
}

// certified is a server that wants client certificates, and a client that has
// one, with what is to be changed of it.
func certified(t testing.TB, mode tls.ClientAuthType, edit func(*Server), leaf ...func(*x509.Certificate)) (*direct, func(n int) *testpeer.Client) {
	t.Helper()
	ca := testcert.NewAuthority()
	server, key := ca.Issue("localhost", testcert.NewKey("P-256")), testcert.NewKey("P-256")
	chain := ca.Issue("client", key, leaf...).Certificate
	d := newDirect(t, func(s *Server) {
		s.PSK, s.Certificates = nil, []tls.Certificate{server}
		s.ClientAuth, s.ClientCAs = mode, ca.Pool
		s.MaxClientCertificateBytes = 64 << 10
		if edit != nil {
			edit(s)
		}
	})
	d.now = time.Now()
	return d, func(n int) *testpeer.Client {
		c := testpeer.New("", nil, uint64(n))
		c.Suites, c.Chain, c.Signer = []uint16{ecdheCert}, chain, key
		return c
	}
}

// finish makes a handshake, record by record: a chain may fill a datagram.
func (d *direct) finish(c *testpeer.Client, n int) *Session {
	d.t.Helper()
	from := clientAddr(n)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	for _, r := range c.Records() {
		d.exchange(c, from, r)
	}
	s, ok := d.s.SessionByAddr(from, anyLocal)
	if !ok || !c.Complete {
		d.t.Fatalf("client %d is not connected: %v", n, d.rec.lines())
	}
	return s
}

// TestSessionKeepsBytesOfCertificates: a session holds no more of its client's
// certificates than their bytes, whatever they are, when it was told of and at
// rest. It is not parallel to others, since it looks at the heap.
func TestSessionKeepsBytesOfCertificates(t *testing.T) {
	for _, mode := range []tls.ClientAuthType{tls.RequestClientCert, tls.RequireAndVerifyClientCert} {
		d, client := certified(t, mode, func(s *Server) {
			s.Handler = HandlerFuncs{OnInfo: func(e Event) { _ = e.String() }}
		}, manyNames)
		bytes := 0
		for _, der := range client(0).Chain {
			bytes += len(der)
		}
		const sessions = 40
		d.finish(client(0), 0)
		d.out = nil
		before := liveHeap()
		for n := range sessions {
			d.finish(client(n+1), n+1)
		}
		d.out = nil
		holds := int(liveHeap()-before) / sessions
		t.Logf("%v: %d bytes a session, of which certificates %d", mode, holds, bytes)
		if holds > bytes+6<<10 {
			t.Errorf("%v: a session with certificates of %d bytes holds %d", mode, bytes, holds)
		}
		runtime.KeepAlive(d)
	}
}

// TestHandshakeKeepsBytesOfCertificates: so does a handshake, before and after
// it has proven its key.
func TestHandshakeKeepsBytesOfCertificates(t *testing.T) {
	d, client := certified(t, tls.RequireAndVerifyClientCert, nil, manyNames)
	const handshakes = 40
	for _, messages := range []int{1, 4} { // all but Finished
		before := liveHeap()
		for n := range handshakes {
			c, from := client(n), clientAddr(100*messages+n)
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Hello())
			for _, r := range c.Records()[:messages] {
				d.exchange(c, from, r)
			}
		}
		d.out = nil
		holds := int(liveHeap()-before) / handshakes
		bytes := len(client(0).Chain[0])
		t.Logf("after %d messages %d bytes, of which certificates %d", messages, holds, bytes)
		if holds > bytes+11<<10 {
			t.Errorf("after %d messages a handshake with certificates of %d bytes holds %d", messages, bytes, holds)
		}
	}
	runtime.KeepAlive(d)
}

// TestCertificatesOfState: VerifyConnection, the handler and who asks later get
// the same certificates, the chains begin with them, and they are parsed once
// for those that come together.
func TestCertificatesOfState(t *testing.T) {
	t.Parallel()
	var asked, told *x509.Certificate
	d, client := certified(t, tls.RequireAndVerifyClientCert, func(s *Server) {
		s.VerifyConnection = func(_ context.Context, req *VerifyRequest) error { asked = req.State.PeerCertificates[0]; return nil }
	})
	d.rec.then.OnInfo = func(e Event) {
		if e.Kind == KindHandshakeComplete {
			runtime.GC()
			told = e.Session.ConnectionState().PeerCertificates[0]
		}
	}
	s := d.finish(client(1), 1)
	if asked == nil || asked != told {
		t.Error("VerifyConnection and the handler got different certificates")
	}
	d.advance(5 * time.Minute)
	state := s.ConnectionState()
	wantState := func(state ConnectionState) {
		t.Helper()
		if len(state.PeerCertificates) != 2 || state.PeerCertificates[0].Subject.CommonName != "client" || len(state.VerifiedChains) != 1 ||
			state.VerifiedChains[0][0] != state.PeerCertificates[0] || state.VerifiedChains[0][1].Subject.CommonName != "Test CA" {
			t.Fatalf("%+v", state)
		}
	}
	wantState(state)
	runtime.GC()
	runtime.GC()
	if again := s.ConnectionState(); again.PeerCertificates[0] != state.PeerCertificates[0] {
		t.Error("parsed again, though the first are held")
	}
	first := state.PeerCertificates[0].Raw
	state = ConnectionState{}
	s.Close()
	wantState(s.ConnectionState())
	if string(s.ConnectionState().PeerCertificates[0].Raw) != string(first) {
		t.Error("other certificates after the end")
	}

	// Many at once, for the race detector.
	s = d.finish(client(2), 2)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { wantState(s.ConnectionState()) })
	}
	all.Wait()
}

// TestCertificatesOfRefused: nothing stays with a session that never was.
func TestCertificatesOfRefused(t *testing.T) {
	t.Parallel()
	var refused *Session
	d, client := certified(t, tls.RequireAndVerifyClientCert, func(s *Server) {
		s.VerifyConnection = func(context.Context, *VerifyRequest) error { return errIdentityTooLong }
	})
	d.rec.then.OnWarning = func(e Event) { refused = e.Session }
	c, from := client(1), clientAddr(1)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Flight())
	d.rec.want(t, KindHandshakeFailed, 1, "refused")
	if refused == nil || refused.clientCertificates != nil || refused.ConnectionState().PeerCertificates != nil {
		t.Error("the certificates stay")
	}
}
