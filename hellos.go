package dtlsserver

import (
	"errors"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
)

// Hellos that are refused before their sender's address is proven, and verified
// ones that come in parts.

// maxVersionAlerts bounds, in a second, the alerts to addresses that are not
// proven.
const maxVersionAlerts = 100

// Why a hello was refused. If the client was sent an alert, it is an *AlertError.
var (
	errWrongCookie    = errors.New("dtlsserver: returns a new cookie, but not with the hello or from the address that it is for")
	errNoVersion      = errors.New("dtlsserver: offers no DTLS 1.2; no alert was sent")
	errVersionRefused = &AlertError{Code: uint8(engine.AlertProtocolVersion), Sent: true, Reason: "ClientHello offers no DTLS 1.2"}
)

// refuseVersion refuses a client that cannot do DTLS 1.2, has not proven its
// address, and, as it does not know HelloVerifyRequest, never will. It is sent
// the one alert that goes to such an address: a fifth of its hello's length, so
// many in a second for all clients together, and never to an address that has a
// session or a handshake, which anybody could end so.
func (l *loop) refuseVersion(now time.Time, m *udpio.Message, hello *engine.Hello) {
	l.counters.drop(dropVersion)
	if now.Sub(l.alertsSince) >= time.Second || now.Before(l.alertsSince) {
		l.alertsSince, l.alerts = now, 0
	}
	if l.alerts >= maxVersionAlerts || l.knows(m.Remote) {
		l.refusedHello(now, m, errNoVersion)
		return
	}
	l.alerts++
	l.counters.versionAlerts.Add(1)
	_ = l.conn.Send(hello.AppendProtocolVersion(l.request[:0]), m.Remote, m.Local) // counted; the client asks again
	l.refusedHello(now, m, errVersionRefused)
}

// refusedHello reports a hello that was refused. Each reason folds for itself.
func (l *loop) refusedHello(now time.Time, m *udpio.Message, why error) {
	ev := Event{Kind: KindHelloRefused, Time: now, Remote: m.Remote, Local: l.conn.LocalAddr(), Err: why}
	if why == errWrongCookie {
		ev.variant = 1
	}
	l.outbox.put(ev)
}

// receiveVerified gives the datagram with the verified hello, or a part of it, to
// the handshake.
func (l *loop) receiveVerified(now time.Time, s *Session, m *udpio.Message, hello *engine.Hello) {
	datagram := m.Buf[:m.N]
	if hello.InParts {
		s.receiveHello(now, hello)
		l.schedule(s)
		l.endGivingWay()
		l.deliver()
		datagram = hello.Rest
	}
	if len(datagram) > 0 {
		at := pathOf(s)
		l.receiveRecords(now, &arrival{path: at, only: s}, l.familyOf(at.remote, at.local), datagram)
	}
}

// receiveHello gives the verified hello to the engine.
func (s *Session) receiveHello(now time.Time, hello *engine.Hello) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eng.ReceiveHello(now, hello)
	s.pumpLocked(now)
}

// awaitsHello reports whether some of the verified hello has not come.
func (s *Session) awaitsHello() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eng.AwaitsHello()
}
