package dtlsserver

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// linked is in a ring and in a heap.
type linked struct {
	n      int
	link   ring[linked]
	placed int32
}

func (m *linked) before(o *linked) bool { return m.n > o.n }
func (m *linked) place() *int32         { return &m.placed }

var inRing at[linked] = func(m *linked) *ring[linked] { return &m.link }

// TestRing holds rings against slices.
func TestRing(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var first *linked
	var want []*linked
	for i := range 10_000 {
		if len(want) == 0 || rng.IntN(2) == 0 && len(want) < 20 {
			m := &linked{n: i}
			inRing.push(&first, m)
			want = append(want, m)
		} else {
			k := rng.IntN(len(want))
			inRing.remove(&first, want[k])
			if want[k].link != (ring[linked]{}) {
				t.Fatal("what was removed has links left")
			}
			want = slices.Delete(want, k, k+1)
		}
		m := first
		for _, w := range want {
			if m != w || w.link.next.link.prev != w {
				t.Fatalf("after %d steps the ring is not %v", i, want)
			}
			m = m.link.next
		}
		if m != first || first == nil != (len(want) == 0) {
			t.Fatalf("after %d steps the ring does not close", i)
		}
	}
}

// TestRanking holds heaps against sorted slices.
func TestRanking(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	var h ranking[*linked]
	var all []*linked
	for range 20_000 {
		switch k := rng.IntN(4); {
		case k == 0 && len(all) < 100:
			all = append(all, &linked{n: rng.IntN(1000)})
			h.set(all[len(all)-1])
		case k == 1 && len(all) > 0:
			i := rng.IntN(len(all))
			h.unset(all[i])
			h.unset(all[i]) // once more does nothing
			all = slices.Delete(all, i, i+1)
		case len(all) > 0:
			m := all[rng.IntN(len(all))]
			m.n = rng.IntN(1000)
			h.set(m)
		}
		if len(h) != len(all) {
			t.Fatalf("%d in the heap, want %d", len(h), len(all))
		}
		for i, m := range h {
			if int(m.placed) != i+1 {
				t.Fatalf("the %d. in the heap says that it is the %d.", i+1, m.placed)
			}
		}
		if len(all) > 0 && h[0].n != slices.MaxFunc(all, func(a, b *linked) int { return a.n - b.n }).n {
			t.Fatal("the first has not most")
		}
	}
}
