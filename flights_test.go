package dtlsserver

// When flights are sent again, by the timer and on request, and what becomes of
// handshakes whose flights are lost.

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// lengths takes what has come, unread, and returns the lengths of the datagrams.
func (p *peer) lengths() (lengths []int) {
	synctest.Wait()
	for {
		select {
		case d := <-p.pipe.in:
			lengths = append(lengths, len(d.b))
		default:
			return lengths
		}
	}
}

// TestFlightOnceAtATime: a hello that is repeated about when our own timer comes up
// gets the flight once; one that is repeated later gets it again.
func TestFlightOnceAtATime(t *testing.T) {
	t.Parallel()
	const first = DefaultRetransmitTimeout
	tests := []struct {
		name string
		at   time.Duration // the hello again
		want int           // flights from then on, in a quarter of the first timeout
	}{
		{"just after the flight", 10 * time.Millisecond, 0},
		{"before the timer", first - 10*time.Millisecond, 1},
		{"after the timer", first + 10*time.Millisecond, 0},
		{"after a quarter of the timeout", first + first/4, 1},
		{"before the second timer", 3*first - 10*time.Millisecond, 1},
		{"after the second timer", 3*first + 10*time.Millisecond, 0},
		{"after the third timer", 7*first + 10*time.Millisecond, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, nil, func(b *bubble) {
				p := b.peer(1)
				p.send(p.Hello())
				p.receive()
				hello := p.Hello()
				p.send(hello)
				time.Sleep(tt.at)
				p.lengths()
				p.send(hello)
				time.Sleep(first / 4)
				if n := len(p.lengths()); n != tt.want {
					t.Errorf("the flight went out %d times, want %d", n, tt.want)
				}
			})
		})
	}
}

// TestNonsenseIsTold: a peer whose own words cannot be is told why the association
// ends, after the flight that opened it, and so is the operator. Nothing is left.
func TestNonsenseIsTold(t *testing.T) {
	t.Parallel()
	for _, joined := range []bool{true, false} {
		for _, again := range []bool{true, false} {
			d := newDirect(t, nil)
			from := clientAddr(1)
			if again { // there is an open session, which the new one replaces
				d.establish(testpeer.New(testIdentity, []byte(testKey), 1), from)
				d.advance(5 * time.Second) // so that nothing is folded
			}
			before := len(d.rec.log)
			c := testpeer.New(testIdentity, []byte(testKey), 2)
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Hello())
			records := c.Records()
			finished := c.FinishedMessage()
			second := testpeer.Message(wire.TypeFinished, c.MessageSeq, finished[wire.HandshakeHeaderLen:])
			d.exchange(c, from, slices.Concat(records[:2]...))
			if joined {
				d.exchange(c, from, c.Sealed(wire.ContentHandshake, slices.Concat(finished, second)))
			} else {
				d.exchange(c, from, slices.Concat(records[2], c.Sealed(wire.ContentHandshake, second)))
			}
			if !c.Complete || !slices.Equal(c.Alerts, []wire.Alert{{Level: wire.LevelFatal, Description: wire.AlertUnexpectedMessage}}) {
				t.Errorf("joined %v, again %v: complete %v, alerts %v", joined, again, c.Complete, c.Alerts)
			}
			d.advance(time.Minute)
			var closed *AlertError
			e := d.rec.of(KindSessionClosed)
			if len(e) == 0 || !errors.As(e[len(e)-1].Err, &closed) || !closed.Sent || closed.Code != 10 || closed.Reason == "" {
				t.Errorf("joined %v, again %v: %v", joined, again, e)
			}
			want := []string{"HelloVerified", "PSKRequested", "HandshakeComplete", "SessionClosed"}
			if again {
				want = []string{"HelloVerified", "PSKRequested", "SessionClosed", "HandshakeComplete", "SessionClosed"}
			}
			log := slices.DeleteFunc(slices.Clone(d.rec.log[before:]), func(s string) bool { return s == "HelloVerifyRequest" || s == "RecordDropped" })
			if !slices.Equal(log, want) {
				t.Errorf("joined %v, again %v: told %v, want %v", joined, again, log, want)
			}
			if left := d.l.left(); left != "" {
				t.Errorf("joined %v, again %v: left: %s", joined, again, left)
			}
		}
	}
}
