package dtlsserver

import (
	"reflect"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// What is told and sent around the end of a session, and of hooks that outlive
// theirs.

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
