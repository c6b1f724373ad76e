package dtlsserver

// Secrets are neither shown nor kept, but for those of the key log.

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestSecretsAreNotShown: neither the key nor the cookie secret is in any event,
// log line, error or string.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	const key = "the key that nobody may see"
	secret := bytes.Repeat([]byte("cookie secret"), 4)
	var out bytes.Buffer
	level := new(slog.LevelVar)
	level.Set(slog.LevelDebug)
	psk := PSK{Key: []byte(key)}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, format, psk)
		fmt.Fprintf(&out, format, &psk)
	}
	logger := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: level}))
	logger.Info("psk", "psk", psk, "pointer", &psk)
	for _, hook := range []PSKFunc{
		StaticPSK(map[string][]byte{testIdentity: []byte(key)}),
		func(context.Context, PSKRequest) (PSK, error) { return psk, errors.New("broken") },
		func(context.Context, PSKRequest) (PSK, error) { return psk, ErrUnknownPSKIdentity },
	} {
		for _, clientKey := range []string{key, "wrong"} {
			d := newDirect(t, func(s *Server) {
				s.PSK = hook
				s.Handler = MultiHandler(s.Handler, LogHandler(logger))
				s.Verifier = mustVerifier(t, secret)
			})
			c, from := testpeer.New(testIdentity, []byte(clientKey), rand.Uint64()), clientAddr(1)
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Flight())
			if c.Complete {
				d.exchange(c, from, c.Sealed(wire.ContentApplicationData, []byte("data")))
			}
			if session, ok := d.s.SessionByAddr(from, anyLocal); ok {
				fmt.Fprintf(&out, "%v %+v %+v %+v", session, session.ConnectionState(), session.Stats(), d.s.Stats())
			}
			d.advance(time.Hour)
			fmt.Fprintln(&out, d.rec.lines())
			for _, e := range d.rec.events {
				fmt.Fprintf(&out, "%v %v\n", e.Kind, e.Err)
			}
		}
	}
	_, err := NewVerifier(secret[:31])
	fmt.Fprintln(&out, err)
	text := out.String()
	if !strings.Contains(text, "HandshakeComplete") || !strings.Contains(text, "broken") {
		t.Fatalf("the output is not what this test is about: %s", text)
	}
	for _, s := range []string{key, hex.EncodeToString([]byte(key)), fmt.Sprint([]byte(key)), string(secret[:16]), hex.EncodeToString(secret[:16])} {
		if i := strings.Index(text, s); i >= 0 {
			t.Errorf("%q is shown: %s", s, text[max(0, i-100):i+len(s)])
		}
	}
}

// TestSecretsAreCleared: a session that is over keeps no keys, however long
// somebody holds it, and what was settled can still be asked for.
func TestSecretsAreCleared(t *testing.T) {
	t.Parallel()
	for end, by := range map[string]func(d *direct, c *testpeer.Client, s *Session){
		"close_notify": func(d *direct, c *testpeer.Client, s *Session) {
			d.receive(s.RemoteAddr(), c.Sealed(wire.ContentAlert, []byte{1, 0}))
		},
		"fatal alert": func(d *direct, c *testpeer.Client, s *Session) {
			d.receive(s.RemoteAddr(), c.Sealed(wire.ContentAlert, []byte{2, 80}))
		},
		"Close":   func(d *direct, c *testpeer.Client, s *Session) { s.Close() },
		"silence": func(d *direct, c *testpeer.Client, s *Session) { d.advance(DefaultIdleTimeout) },
		"re-connect": func(d *direct, c *testpeer.Client, s *Session) {
			d.establish(testpeer.New(testIdentity, []byte(testKey), 2), s.RemoteAddr())
		},
	} {
		d := newDirect(t, nil)
		c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
		d.establish(c, from)
		s, _ := d.s.SessionByAddr(from, anyLocal)
		state := s.ConnectionState()
		if !state.HandshakeComplete || state.PSKIdentity != testIdentity {
			t.Errorf("the session's state is %+v", state)
		}
		eng := reflect.ValueOf(&s.eng).Elem()
		for _, name := range []string{"master", "sealer", "opener"} {
			if eng.FieldByName(name).IsZero() {
				t.Errorf("an open session has no %s", name)
			}
		}
		by(d, c, s)
		for _, name := range []string{"master", "sealer", "opener"} {
			if !eng.FieldByName(name).IsZero() {
				t.Errorf("%s: a closed session has its %s", end, name)
			}
		}
		if after := s.ConnectionState(); !reflect.DeepEqual(after, state) {
			t.Errorf("%s: the state is %+v, and was %+v", end, after, state)
		}
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
