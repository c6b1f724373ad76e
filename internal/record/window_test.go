// Tests of the replay window: rules by hand, and random input against a map.

package record

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

func TestWindow(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		mark  []uint64
		fresh []uint64
		seen  []uint64
	}{
		{name: "zero value", fresh: []uint64{0, 1, 63, 64, wire.MaxSequence}},
		{name: "first record", mark: []uint64{0}, fresh: []uint64{1, 2, 64}, seen: []uint64{0}},
		{name: "starts at one", mark: []uint64{1}, fresh: []uint64{0, 2}, seen: []uint64{1}},
		{name: "in order", mark: []uint64{0, 1, 2, 3}, fresh: []uint64{4, 5}, seen: []uint64{0, 1, 2, 3}},
		{name: "out of order", mark: []uint64{5, 3, 4, 0}, fresh: []uint64{1, 2, 6}, seen: []uint64{0, 3, 4, 5}},
		{name: "oldest of the window", mark: []uint64{100}, fresh: []uint64{37, 38, 99, 101}, seen: []uint64{0, 35, 36, 100}},
		{name: "oldest of the window marked", mark: []uint64{100, 37}, fresh: []uint64{38}, seen: []uint64{36, 37, 100}},
		{name: "shift by 62", mark: []uint64{10, 11, 73}, fresh: []uint64{12, 72, 74}, seen: []uint64{9, 10, 11, 73}},
		{name: "shift by 63", mark: []uint64{10, 11, 74}, fresh: []uint64{12, 73, 75}, seen: []uint64{10, 11, 74}},
		{name: "shift by 64", mark: []uint64{10, 11, 75}, fresh: []uint64{12, 74, 76}, seen: []uint64{11, 75}},
		{name: "shift by 65", mark: []uint64{10, 11, 76}, fresh: []uint64{13, 75, 77}, seen: []uint64{11, 12, 76}},
		{name: "far jump", mark: []uint64{0, 1, 2, 1 << 40}, fresh: []uint64{1<<40 - 63, 1<<40 - 1, 1<<40 + 1}, seen: []uint64{0, 1, 2, 3, 1<<40 - 64, 1 << 40}},
		{name: "highest sequence number", mark: []uint64{wire.MaxSequence}, fresh: []uint64{wire.MaxSequence - 1, wire.MaxSequence - 63}, seen: []uint64{wire.MaxSequence, wire.MaxSequence - 64, 0}},
		{name: "marked twice", mark: []uint64{7, 7}, fresh: []uint64{6, 8}, seen: []uint64{7}},
		{name: "marked past the window", mark: []uint64{100, 3}, fresh: []uint64{37, 99}, seen: []uint64{3, 36, 100}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var w Window
			for _, seq := range test.mark {
				w.Mark(seq)
			}
			// Twice: asking must change nothing.
			for range 2 {
				for _, seq := range test.fresh {
					if !w.Fresh(seq) {
						t.Errorf("%d is not fresh", seq)
					}
				}
				for _, seq := range test.seen {
					if w.Fresh(seq) {
						t.Errorf("%d is fresh", seq)
					}
				}
			}
		})
	}
}

// TestWindowModel compares the window with a map of what was marked, under
// steps of every size around its own.
func TestWindowModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 3))
			var w Window
			marked := map[uint64]bool{}
			highest, some := uint64(0), false
			around := uint64(random.IntN(200))
			for step := range 5000 {
				switch random.IntN(20) {
				case 0:
					around += uint64(random.IntN(200))
				case 1:
					around += uint64(random.Int64N(1 << 34))
				default:
					around += uint64(random.IntN(2))
				}
				seq := around - min(around, uint64(random.IntN(90)))
				want := !some || seq > highest || highest-seq < 64 && !marked[seq]
				if got := w.Fresh(seq); got != want {
					t.Fatalf("step %d: Fresh(%d) = %v, highest %d", step, seq, got, highest)
				}
				if want && random.IntN(4) > 0 {
					w.Mark(seq)
					marked[seq] = true
					highest, some = max(highest, seq), true
				}
			}
		})
	}
}
