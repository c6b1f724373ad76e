package dtlsserver

// Secrets that were never filled in, and texts that peers make long.

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestSessionTicketKeysAreChecked: a variable that was never set is no key, and
// a refused call changes nothing.
func TestSessionTicketKeysAreChecked(t *testing.T) {
	t.Parallel()
	one, two := [32]byte{1}, [32]byte{31: 2}
	for _, tt := range []struct {
		name string
		keys [][32]byte
		want string // of the error; empty: none
	}{
		{"none", nil, ""},
		{"one", [][32]byte{one}, ""},
		{"two", [][32]byte{one, two}, ""},
		{"zero", [][32]byte{{}}, "key 0 has only zero bytes"},
		{"zero behind", [][32]byte{one, {}}, "key 1 has only zero bytes"},
		{"twice", [][32]byte{one, two, one}, "key 2 is the same as 0"},
	} {
		var s Server
		if err := s.SetSessionTicketKeys(two); err != nil {
			t.Fatal(err)
		}
		before := s.tickets.keys[0].name
		err := s.SetSessionTicketKeys(tt.keys...)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && (len(s.tickets.keys) != 1 || s.tickets.keys[0].name != before) {
			t.Errorf("%s: the keys were changed", tt.name)
		}
	}
}

// TestZeroPSK: a key of zeros is an error for the operator, and for the client as
// an unknown identity.
func TestZeroPSK(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) {
		s.PSK = func(context.Context, PSKRequest) (PSK, error) { return PSK{Key: make([]byte, 16)}, nil }
	})
	c, from := testpeer.New(testIdentity, make([]byte, 16), 1), clientAddr(1)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	if d.exchange(c, from, c.Flight()); c.Complete || len(c.Alerts) != 0 {
		t.Errorf("complete %v, alerts %v", c.Complete, c.Alerts)
	}
	if e := d.rec.want(t, KindPSKFailed, 1, "for a key of zeros"); !errors.Is(e.Err, errZeroPSK) {
		t.Errorf("%v", e)
	}
}

// TestTextsOfPeersAreShort: what a peer has chosen makes no long line.
func TestTextsOfPeersAreShort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\u00e9", 15_000)
	ca := testcert.NewAuthority()
	certificate := ca.Issue("client", testcert.NewKey("P-256"), func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "begins so " + long}
	})
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if text := subjectText(leaf); !strings.HasPrefix(text, "CN=begins so \u00e9") || len(text) > maxText+4 {
		t.Errorf("a subject of %d bytes makes a text of %d: %.40q", len(leaf.RawSubject), len(text), text)
	}
	e := Event{Kind: KindHandshakeFailed, Remote: clientAddr(1), Count: 1, Err: &AlertError{Code: 42, Sent: true, Reason: long}}
	var log bytes.Buffer
	LogHandler(slog.New(slog.NewJSONHandler(&log, nil))).Warning(e)
	for _, line := range []string{e.String(), log.String()} {
		if len(line) > 2*maxText || !strings.Contains(line, "bad_certificate") {
			t.Errorf("a line of %d bytes: %.200s", len(line), line)
		}
	}
}

// TestAlertsFoldWhateverTheirCode: a key holder that ends handshakes and sessions
// with each alert that there is makes one warning a second of each kind.
func TestAlertsFoldWhateverTheirCode(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	for code := range 256 {
		if code == int(wire.AlertCloseNotify) {
			continue
		}
		from := clientAddr(1)
		c := testpeer.New(testIdentity, []byte(testKey), uint64(code))
		d.establish(c, from)
		d.receive(from, c.Sealed(wire.ContentAlert, []byte{byte(wire.LevelWarning), byte(code)}))
		d.receive(from, c.Sealed(wire.ContentAlert, []byte{byte(wire.LevelFatal), byte(code)}))

		c = testpeer.New(testIdentity, []byte(testKey), uint64(1000+code))
		d.exchange(c, from, c.Hello())
		d.exchange(c, from, c.Hello())
		cke, ccs, _ := c.KeyExchange()
		d.exchange(c, from, cke)
		d.exchange(c, from, ccs)
		d.receive(from, c.Sealed(wire.ContentAlert, []byte{byte(wire.LevelFatal), byte(code)}))
	}
	for _, kind := range []EventKind{KindAlertReceived, KindHandshakeFailed} {
		if n := len(d.rec.of(kind)); n != 1 {
			t.Errorf("%d events %v in an instant", n, kind)
		}
	}
	if n := len(d.l.outbox.fold.windows); n > 8 {
		t.Errorf("%d kinds and sources are told apart, of one peer", n)
	}
}

// TestKeyLog writes lines that a packet analyzer reads.
func TestKeyLog(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	inBubble(t, func(s *Server) { s.KeyLogWriter = &log }, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		want := fmt.Sprintf("CLIENT_RANDOM %x ", p.Random)
		if line := log.String(); !strings.HasPrefix(line, want) || len(line) != len(want)+96+1 {
			t.Errorf("key log %q", line)
		}
	})
}
