package dtlsserver

// When flights are sent again, by the timer and on request, and what becomes of
// handshakes whose flights are lost.

import (
	"testing"
	"testing/synctest"
	"time"
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
