package dtlsserver

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

func (s *Session) resting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eng.Resting()
}

// TestRest: a session that is silent for 30 s rests; what either side says ends
// that, as what is forged does, and it rests again.
func TestRest(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) { s.Handler.(*recorder).then.OnDatagramReceived = echo }, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		session, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		want := func(resting bool, why string) {
			t.Helper()
			synctest.Wait()
			if session.resting() != resting {
				t.Fatalf("%s: resting %v", why, !resting)
			}
		}
		say := func() {
			t.Helper()
			p.send(p.Sealed(wire.ContentApplicationData, []byte("text")))
			if n := p.receive(); n != 1 {
				t.Fatalf("%d answers", n)
			}
		}
		time.Sleep(restAfter - time.Millisecond)
		want(false, "29.999 s after the handshake")
		time.Sleep(2 * time.Millisecond)
		want(true, "30 s after the handshake")

		forged := p.Sealed(wire.ContentApplicationData, []byte("text"))
		forged[len(forged)-1] ^= 1
		p.send(forged)
		want(false, "after a forged record")
		time.Sleep(restAfter + time.Millisecond)
		want(true, "30 s after a forged record")

		say()
		want(false, "after a datagram")
		time.Sleep(restAfter / 2)
		say()
		time.Sleep(restAfter - time.Millisecond)
		want(false, "29.999 s after the last datagram")
		time.Sleep(restAfter) // the answer was written, at a time nobody noted
		want(true, "a minute after the last datagram")

		if _, err := session.Write([]byte("push")); err != nil {
			t.Fatal(err)
		}
		want(false, "after Write")
		if n := p.receive(); n != 1 {
			t.Fatalf("%d datagrams of Write", n)
		}
		time.Sleep(2*restAfter + time.Millisecond)
		want(true, "a minute after Write")

		b.server.Close()
		if n := p.receive(); n != 1 {
			t.Errorf("%d answers to Close at rest, want close_notify", n)
		}
	})
}
