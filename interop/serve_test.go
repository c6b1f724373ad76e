package interop

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dtlsserver/dtlsserver"
)

// served is a server in this process.
type served struct {
	addr   string
	moved  chan dtlsserver.Event // of KindPeerMoved
	opened chan struct{}         // closed when a handshake is complete

	mu       sync.Mutex // guards all following
	sessions []*dtlsserver.Session
	events   []string
}

// mostMoves bounds the moves that a test may leave in served.moved.
const mostMoves = 2000

// serve listens on a free port of the loopback interface until the test ends,
// answers as examples/server does, and logs the events of a test that fails.
func serve(t *testing.T, s *dtlsserver.Server) *served {
	t.Helper()
	return serveWith(t, s, func(s *dtlsserver.Session, _ []byte) {
		fmt.Fprintf(s, "to %v: ACK", s.RemoteAddr())
	})
}

// serveWith is serve with other answers.
func serveWith(t *testing.T, s *dtlsserver.Server, answer func(s *dtlsserver.Session, message []byte)) *served {
	t.Helper()
	d := &served{moved: make(chan dtlsserver.Event, mostMoves), opened: make(chan struct{})}
	note := func(e dtlsserver.Event) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.events = append(d.events, e.String())
		switch e.Kind {
		case dtlsserver.KindHandshakeComplete:
			if d.sessions = append(d.sessions, e.Session); len(d.sessions) == 1 {
				close(d.opened)
			}
		case dtlsserver.KindPeerMoved:
			d.moved <- e
		}
	}
	s.Handler = dtlsserver.HandlerFuncs{
		OnError: note, OnWarning: note, OnInfo: note,
		OnDatagramReceived: func(s *dtlsserver.Session, _, message []byte) { answer(s, message) },
	}
	if err := s.Listen("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	d.addr = s.Addr().String()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if s.Close(); s.Shutdown(ctx) != nil {
			t.Error("the server does not end")
		}
		if t.Failed() {
			d.mu.Lock()
			defer d.mu.Unlock()
			t.Logf("the server's events:\n%s", strings.Join(d.events, "\n"))
		}
	})
	return d
}

// complete returns the sessions whose handshakes are complete, in their order.
// A handshake is told of before the data that a client sees answered.
func (d *served) complete() []*dtlsserver.Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sessions
}

// wantResumed wants one full handshake and then so many that resume it.
func (d *served) wantResumed(t *testing.T, n int) {
	t.Helper()
	var resumed []bool
	for _, s := range d.complete() {
		resumed = append(resumed, s.ConnectionState().DidResume)
	}
	if !slices.Equal(resumed, append([]bool{false}, slices.Repeat([]bool{true}, n)...)) {
		t.Errorf("of the server's sessions are resumed: %v, want a full one and %d resumed", resumed, n)
	}
}
