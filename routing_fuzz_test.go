package dtlsserver

import (
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// FuzzRouting gives a loop datagrams, made as the bytes say of genuine records of three
// clients, of repeated ones, of pieces of them and of what the bytes are, from a few
// addresses. A session moves with the newest of its own records, and by nothing else;
// each keeps its place; and in the end each client that nobody has ended is answered.
func FuzzRouting(f *testing.F) {
	f.Add([]byte{0, 1, 1, 2, 2, 3, 3, 1, 4, 4, 0, 1})
	f.Add([]byte{3, 0, 4, 1, 19, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{5, 1, 0, 2, 6, 2, 1, 3, 7, 3})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 200 {
			return
		}
		d := newDirect(t, func(s *Server) {
			echoes(s)
			s.ConnectionIDs.Move = MoveAtOnce
		})
		clients := make([]*testpeer.Client, 3)
		sessions := make([]*Session, 3)
		want := make([]int, 3) // where each session is
		for i := range clients {
			if i < 2 {
				clients[i], sessions[i] = d.roam(clientAddr(i), nil)
			} else {
				clients[i] = d.connect(testIdentity, clientAddr(i))
				sessions[i], _ = d.s.SessionByAddr(clientAddr(i), anyLocal)
				d.out, d.to = nil, nil
			}
			want[i] = i
		}
		next := func() (b byte) {
			if len(ops) > 0 {
				b, ops = ops[0], ops[1:]
			}
			return b
		}
		var sent [][]byte
		for len(ops) > 0 {
			op, from := next(), int(next())%6
			who := int(op>>4) % 3
			c := clients[who]
			var b []byte
			switch op % 8 {
			case 0, 1:
				b = data(c, "genuine")
				if sent = append(sent, b); who < 2 {
					want[who] = from
				}
			case 2:
				if len(sent) > 0 {
					b = sent[int(next())%len(sent)]
				}
			case 3: // cut, or spoilt
				if len(sent) > 0 {
					old := sent[int(next())%len(sent)]
					b = append(b, old[:int(next())%len(old)]...)
				}
			case 4: // what the bytes are
				n := min(int(next()), len(ops))
				b, ops = append(b, ops[:n]...), ops[n:]
			case 5: // and behind a connection ID
				n := min(int(next()), len(ops))
				b = wire.AppendRecordHeaderCID(nil, wire.VersionDTLS12, uint16(next()%3), uint64(next()), clients[who%2].ServerCID, n)
				n = min(n, len(ops))
				b, ops = append(b, ops[:n]...), ops[n:]
			case 6: // one behind another, which belongs to somebody else
				first := data(c, "genuine")
				if who < 2 {
					want[who] = from
				}
				b = append(first, data(clients[(who+1)%3], "lost")...)
			case 7:
				b = c.Plain(wire.ContentType(next()), []byte{2, 40})
			}
			if who == 2 && from != 2 && op%8 < 2 {
				from = 2 // it has no connection ID
			}
			d.l.receive(d.now, message(clientAddr(from), b))
			d.settle()
			d.out, d.to = nil, nil
			if wrong := d.l.misplaced(); wrong != "" {
				t.Fatal(wrong)
			}
			for i, s := range sessions {
				if s.isOver() {
					t.Fatalf("session %d is over", i)
				}
				if at := s.RemoteAddr(); at != clientAddr(want[i]) {
					t.Fatalf("session %d is at %v, want %v", i, at, clientAddr(want[i]))
				}
			}
		}
		for i, c := range clients {
			n := len(c.Data)
			at := clientAddr(want[i])
			d.l.receive(d.now, message(at, data(c, "in the end")))
			d.settle()
			for k, b := range d.out {
				if d.to[k] == at {
					_ = c.Receive(b)
				}
			}
			d.out, d.to = nil, nil
			if len(c.Data) != n+1 {
				t.Errorf("client %d is no longer answered", i)
			}
		}
	})
}
