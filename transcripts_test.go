package dtlsserver

import (
	"crypto/sha256"
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

var updateTranscripts = flag.Bool("update-transcripts", false, "write testdata/transcripts.txt")

// transcript is what the server sends to one client.
type transcript struct {
	*direct
	sent int
	all  []byte // the datagrams, each behind its length
}

// say gives the loop a datagram, and the client what is sent; if lost, it is only
// recorded.
func (tr *transcript) say(c *testpeer.Client, b []byte, lost bool) {
	tr.t.Helper()
	tr.receive(clientAddr(1), b)
	tr.take(c, lost)
}

func (tr *transcript) take(c *testpeer.Client, lost bool) {
	tr.t.Helper()
	for _, out := range tr.outTo(clientAddr(1)) {
		tr.sent++
		tr.all = append(fmt.Appendf(tr.all, "%d ", len(out)), out...)
		if lost {
			continue
		}
		if err := c.Receive(out); err != nil {
			tr.t.Fatal(err)
		}
	}
}

// shake has the client connect, and lose a flight of the server's: the first (1),
// or the last (2).
func (tr *transcript) shake(c *testpeer.Client, loses int) {
	tr.t.Helper()
	tr.say(c, c.Hello(), false)
	tr.say(c, c.Hello(), loses == 1)
	if loses == 1 {
		for !c.HelloDone {
			tr.advance(2 * time.Second)
			tr.take(c, false)
		}
	}
	tr.say(c, c.Flight(), loses == 2)
	if loses == 2 {
		tr.say(c, c.Sealed(wire.ContentHandshake, c.FinishedMessage()), false)
	}
	if !c.Complete {
		tr.t.Fatal("not connected")
	}
	tr.say(c, c.Sealed(wire.ContentApplicationData, []byte("request")), false)
}

// TestTranscripts: with fixed randomness and time, handshakes are the same, byte for
// byte, as those in testdata/transcripts.txt. A change that means to alter what is
// sent writes the file anew, with -update-transcripts. What is made of the same
// randomness differs between releases of Go, so the file says which it is for.
func TestTranscripts(t *testing.T) {
	const file = "testdata/transcripts.txt"
	release := strings.Join(strings.SplitN(runtime.Version(), ".", 3)[:2], ".") // as go1.26
	recorded, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !*updateTranscripts && !strings.HasPrefix(string(recorded), release+"\n") {
		t.Skipf("recorded with another release than %s", release)
	}
	var got strings.Builder
	fmt.Fprintln(&got, release)
	for _, id := range DefaultCipherSuites() {
		kx := suite.ByID(id).KeyExchange
		cases := map[string]func(*transcript, *testpeer.Client){
			"full":              func(tr *transcript, c *testpeer.Client) { tr.shake(c, 0) },
			"without EMS":       func(tr *transcript, c *testpeer.Client) { c.NoEMS = true; tr.shake(c, 0) },
			"first flight lost": func(tr *transcript, c *testpeer.Client) { tr.shake(c, 1) },
			"last flight lost":  func(tr *transcript, c *testpeer.Client) { tr.shake(c, 2) },
			"again from the same address": func(tr *transcript, c *testpeer.Client) {
				tr.shake(c, 0)
				again := testpeer.New(testIdentity, []byte(testKey), 2)
				again.Suites, again.Chain, again.Signer = c.Suites, c.Chain, c.Signer
				tr.shake(again, 0)
				tr.say(again, again.Sealed(wire.ContentAlert, []byte{1, 0}), false)
			},
		}
		names := []string{"full", "without EMS", "first flight lost", "last flight lost", "again from the same address"}
		if kx.ECDHE() {
			names = append(names, "ticket")
			cases["ticket"] = func(tr *transcript, c *testpeer.Client) {
				c.AskTicket = true
				tr.shake(c, 0)
				again := testpeer.New(testIdentity, []byte(testKey), 2)
				again.Suites, again.Ticket, again.Master, again.SessionID = c.Suites, c.NewTicket, c.Master, []byte{1, 2, 3}
				again.Chain, again.Signer = c.Chain, c.Signer
				tr.say(again, again.Hello(), false)
				tr.say(again, again.Hello(), false)
				if !again.Resuming {
					tr.t.Fatal("not resumed")
				}
				tr.say(again, again.Resume(), false)
				tr.say(again, again.Sealed(wire.ContentApplicationData, []byte("request")), false)
			}
		}
		auths := []tls.ClientAuthType{tls.NoClientCert}
		if !kx.WithPSK() {
			auths = append(auths, tls.RequireAndVerifyClientCert)
		}
		for _, auth := range auths {
			for _, name := range names {
				synctest.Test(t, func(t *testing.T) {
					cryptotest.SetGlobalRandom(t, 1)
					ca := testcert.NewAuthority()
					c := testpeer.New(testIdentity, []byte(testKey), 1)
					c.Suites = []uint16{id}
					tr := &transcript{direct: newDirect(t, func(s *Server) {
						if kx.WithPSK() {
							return
						}
						kind := "P-256"
						if kx == suite.ECDHERSA {
							kind = "RSA"
						}
						s.Certificates = []tls.Certificate{ca.Issue("localhost", testcert.NewKey(kind))}
						s.ClientAuth, s.ClientCAs = auth, ca.Pool
						key := testcert.NewKey("P-256")
						c.Chain, c.Signer = ca.Issue("client", key).Certificate, key
					})}
					tr.now = time.Now()
					cases[name](tr, c)
					tr.s.Close()
					fmt.Fprintf(&got, "%s, %s, %v: %d datagrams, %x\n", CipherSuiteName(id), name, auth, tr.sent, sha256.Sum256(tr.all))
				})
			}
		}
	}
	if *updateTranscripts {
		if err := os.WriteFile(file, []byte(got.String()), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	old := strings.Split(string(recorded), "\n")
	for i, line := range strings.Split(got.String(), "\n") {
		if i >= len(old) || line != old[i] {
			t.Errorf("line %d: %s\nis not as recorded", i+1, line)
		}
	}
}
