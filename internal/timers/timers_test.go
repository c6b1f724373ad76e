// Tests of the timer queue: rules by hand, and random operations against a
// sorted slice.

package timers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// start is the origin of the virtual time of these tests.
var start = time.Unix(1_700_000_000, 0)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

func wantNext[T any](t *testing.T, q *Queue[T], want time.Time) {
	t.Helper()
	if got, ok := q.Next(); !ok || !got.Equal(want) {
		t.Errorf("Next() = %v, %v, want %v", got, ok, want)
	}
}

func wantExpire(t *testing.T, q *Queue[string], now time.Time, want ...string) {
	t.Helper()
	for _, owner := range want {
		if got, ok := q.Expire(now); !ok || got != owner {
			t.Errorf("Expire = %q, %v, want %q", got, ok, owner)
		}
	}
	if got, ok := q.Expire(now); ok || got != "" {
		t.Errorf("Expire = %q, %v, want none", got, ok)
	}
}

func wantLen[T any](t *testing.T, q *Queue[T], want int) {
	t.Helper()
	if got := q.Len(); got != want {
		t.Errorf("Len() = %d, want %d", got, want)
	}
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	var q Queue[string]
	wantLen(t, &q, 0)
	wantExpire(t, &q, at(1000))
	if got, ok := q.Next(); ok || !got.IsZero() {
		t.Errorf("Next() = %v, %v", got, ok)
	}
	q.Unset(&Timer[string]{})
	wantLen(t, &q, 0)
}

func TestExpireOrder(t *testing.T) {
	t.Parallel()
	var q Queue[string]
	for owner, seconds := range map[string]int{"c": 3, "a": 1, "e": 5, "b": 2, "d": 4} {
		q.Set(&Timer[string]{Owner: owner}, at(seconds))
	}
	wantLen(t, &q, 5)
	wantNext(t, &q, at(1))
	wantExpire(t, &q, at(1).Add(-1))
	wantExpire(t, &q, at(1), "a") // the deadline itself is due
	wantExpire(t, &q, at(4).Add(-1), "b", "c")
	wantNext(t, &q, at(4))
	wantExpire(t, &q, at(100), "d", "e")
	wantLen(t, &q, 0)
}

func TestSetMoves(t *testing.T) {
	t.Parallel()
	var q Queue[string]
	a, b := &Timer[string]{Owner: "a"}, &Timer[string]{Owner: "b"}
	q.Set(a, at(1))
	q.Set(b, at(2))
	q.Set(a, at(3)) // later
	wantLen(t, &q, 2)
	wantNext(t, &q, at(2))
	q.Set(a, at(1)) // earlier
	wantNext(t, &q, at(1))
	wantExpire(t, &q, at(9), "a", "b")
	q.Set(a, at(4)) // an expired timer is as good as new
	wantExpire(t, &q, at(9), "a")
}

func TestSetNoLater(t *testing.T) {
	t.Parallel()
	var q Queue[string]
	a, b := &Timer[string]{Owner: "a"}, &Timer[string]{Owner: "b"}
	q.Set(b, at(20))
	q.SetNoLater(a, at(10)) // not set: sets
	wantLen(t, &q, 2)
	wantNext(t, &q, at(10))
	q.SetNoLater(a, at(30)) // later: leaves
	q.SetNoLater(a, at(10)) // equal: leaves
	wantLen(t, &q, 2)
	wantNext(t, &q, at(10))
	q.SetNoLater(a, at(5)) // earlier: moves
	wantNext(t, &q, at(5))
	wantExpire(t, &q, at(5), "a")
	q.SetNoLater(a, at(30)) // expired, so not set: sets, though later than before
	wantLen(t, &q, 2)
	wantExpire(t, &q, at(30), "b", "a")
	q.Set(a, at(1))
	q.Unset(a)
	q.SetNoLater(a, at(40)) // unset likewise
	wantNext(t, &q, at(40))
}

func TestUnset(t *testing.T) {
	t.Parallel()
	var q Queue[string]
	timers := map[string]*Timer[string]{}
	for i, owner := range []string{"a", "b", "c", "d", "e"} {
		timers[owner] = &Timer[string]{Owner: owner}
		q.Set(timers[owner], at(i))
	}
	q.Unset(timers["c"])
	q.Unset(timers["c"]) // twice is once
	q.Unset(timers["a"])
	q.Unset(timers["e"])
	wantLen(t, &q, 2)
	wantNext(t, &q, at(1))
	wantExpire(t, &q, at(9), "b", "d")
	q.Unset(timers["b"]) // has expired
	wantLen(t, &q, 0)
	q.Set(timers["c"], at(7))
	wantExpire(t, &q, at(9), "c")
}

// TestUnsetReleases: the queue must not keep a removed timer's memory alive.
func TestUnsetReleases(t *testing.T) {
	t.Parallel()
	var q Queue[string]
	a, b := &Timer[string]{Owner: "a"}, &Timer[string]{Owner: "b"}
	q.Set(a, at(1))
	q.Set(b, at(2))
	q.Unset(b)
	q.Expire(at(1))
	for i, kept := range q.heap[:cap(q.heap)] {
		if kept.timer != nil {
			t.Errorf("place %d still holds %q", i, kept.timer.Owner)
		}
	}
}

// model is the queue as a slice that is sorted when it is asked.
type model map[int]time.Time

func (m model) earliest() (at time.Time, ok bool) {
	for _, deadline := range m {
		if !ok || deadline.Before(at) {
			at, ok = deadline, true
		}
	}
	return at, ok
}

func (m model) due(now time.Time) []int {
	var owners []int
	for owner, deadline := range m {
		if !deadline.After(now) {
			owners = append(owners, owner)
		}
	}
	slices.SortFunc(owners, func(a, b int) int { return m[a].Compare(m[b]) })
	return owners
}

// TestModel does the same at random to a queue and to the model. Deadlines are
// few, so that many are equal.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		var q Queue[int]
		m := model{}
		timers := make([]*Timer[int], 40)
		for i := range timers {
			timers[i] = &Timer[int]{Owner: i}
		}
		now := 0
		for step := range 3000 {
			i, deadline := random.IntN(len(timers)), at(now+random.IntN(30))
			switch random.IntN(8) {
			case 0, 1, 2:
				q.Set(timers[i], deadline)
				m[i] = deadline
			case 3, 4:
				q.SetNoLater(timers[i], deadline)
				if old, ok := m[i]; !ok || deadline.Before(old) {
					m[i] = deadline
				}
			case 5, 6:
				q.Unset(timers[i])
				delete(m, i)
			case 7:
				now += random.IntN(8)
				due := m.due(at(now))
				last := time.Time{}
				for range due {
					owner, ok := q.Expire(at(now))
					deadline, set := m[owner]
					if !ok || !set || deadline.After(at(now)) || deadline.Before(last) {
						t.Fatalf("seed %d, step %d: Expire = %d, %v; due %v", seed, step, owner, ok, due)
					}
					last = deadline
					delete(m, owner)
				}
				if owner, ok := q.Expire(at(now)); ok {
					t.Fatalf("seed %d, step %d: %d expires, which is not due", seed, step, owner)
				}
			}
			got, ok := q.Next()
			want, some := m.earliest()
			if q.Len() != len(m) || ok != some || !got.Equal(want) {
				t.Fatalf("seed %d, step %d: Len() = %d, Next() = %v, %v, want %d, %v, %v", seed, step, q.Len(), got, ok, len(m), want, some)
			}
		}
	}
}

// TestMany sets, moves and unsets 100,000 timers and expires the rest in order.
func TestMany(t *testing.T) {
	t.Parallel()
	const n = 100_000
	random := rand.New(rand.NewPCG(1, 2))
	var q Queue[int]
	timers := make([]Timer[int], n)
	deadlines := make([]time.Time, n)
	set := func(i int) {
		deadlines[i] = start.Add(time.Duration(random.Int64N(int64(time.Hour))))
		q.Set(&timers[i], deadlines[i])
	}
	for i := range timers {
		timers[i].Owner = i
		set(i)
	}
	wantLen(t, &q, n)
	for i := 0; i < n; i += 3 {
		set(i)
	}
	left := n
	for i := 1; i < n; i += 3 {
		q.Unset(&timers[i])
		left--
	}
	wantLen(t, &q, left)
	last := start
	expired := make([]bool, n)
	for range left {
		next, _ := q.Next()
		owner, ok := q.Expire(next)
		if !ok || !next.Equal(deadlines[owner]) || next.Before(last) || owner%3 == 1 || expired[owner] {
			t.Fatalf("Expire(%v) = %d, %v after %v", next, owner, ok, last)
		}
		last, expired[owner] = next, true
	}
	wantLen(t, &q, 0)
}

// TestAllocations is not parallel: AllocsPerRun counts the whole process.
func TestAllocations(t *testing.T) {
	var q Queue[int]
	timers := make([]Timer[int], 100)
	for i := range timers {
		q.Set(&timers[i], at(i))
	}
	n := 0
	allocs := testing.AllocsPerRun(100, func() {
		n++
		q.Set(&timers[n%100], at(n))
		q.SetNoLater(&timers[n%100], at(n-50))
		q.Unset(&timers[n%100])
		q.Set(&timers[n%100], at(n%100))
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
	if q.Len() != len(timers) {
		t.Errorf("Len() = %d", q.Len())
	}
}

// BenchmarkHandshake is what a handshake costs a queue with many sessions: a
// timer that is set to a second, comes up, and is set to half a minute.
func BenchmarkHandshake(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			var q Queue[int]
			now := at(0)
			others := make([]Timer[int], n)
			for i := range others {
				q.Set(&others[i], now.Add(time.Duration(i)*time.Hour/time.Duration(n)+time.Minute))
			}
			t := new(Timer[int])
			for range b.N {
				q.Set(t, now.Add(time.Second))
				if _, ok := q.Expire(now.Add(time.Second)); !ok {
					b.Fatal("the timer does not come up")
				}
				q.Set(t, now.Add(30*time.Minute))
				q.Unset(t)
			}
		})
	}
}
