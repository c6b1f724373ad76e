package dtlsserver

import "net/netip"

// turns are the questions of a lane, those that wait and those whose jobs run, by
// source, so that a source that asks much makes itself wait. The next one is of
// the source with fewest jobs that run, and of several the one whose turn is
// longest ago; of a source, the one that has waited longest. The zero
// turns is empty.
type turns struct {
	waiting int
	sources map[netip.Addr]*asker // that have any
	next    ranking[*asker]       // that have some that wait
	turn    uint64                // the last one
	spare   []*asker              // for sources to come
}

// asker is a source with questions.
type asker struct {
	addr    netip.Addr
	first   *question // a ring: those that wait
	running int       // whose jobs run
	turn    uint64    // when it had its last one, or came
	placed  int32
}

// before has the source first whose turn it is.
func (a *asker) before(other *asker) bool {
	if a.running != other.running {
		return a.running < other.running
	}
	return a.turn < other.turn
}

func (a *asker) place() *int32 { return &a.placed }

var inAsker at[question] = func(q *question) *ring[question] { return &q.ofAsker }

// Len returns how many questions wait.
func (t *turns) Len() int { return t.waiting }

// push adds a question.
func (t *turns) push(q *question) {
	addr := sourceOf(q.session.remote.Addr())
	a := t.sources[addr]
	if a == nil {
		a = t.come(addr)
	}
	q.asker = a
	t.waiting++
	inAsker.push(&a.first, q)
	t.next.set(a)
}

// pop takes out the question whose job is to run next, if any waits.
func (t *turns) pop() (q *question, ok bool) {
	if len(t.next) == 0 {
		return nil, false
	}
	a := t.next[0]
	q = a.first
	a.running++
	t.turn++
	a.turn = t.turn
	t.remove(q)
	return q, true
}

// remove takes out a question that waits.
func (t *turns) remove(q *question) {
	a := q.asker
	t.waiting--
	inAsker.remove(&a.first, q)
	if a.first != nil {
		t.next.set(a)
		return
	}
	t.next.unset(a)
	t.leave(a)
}

// answered notes that the job of a question no longer runs.
func (t *turns) answered(q *question) {
	a := q.asker
	a.running--
	if a.first != nil {
		t.next.set(a)
	}
	t.leave(a)
}

// come makes room for a source, whose turn is after all others'.
func (t *turns) come(addr netip.Addr) *asker {
	if t.sources == nil {
		t.sources = make(map[netip.Addr]*asker)
	}
	var a *asker
	if n := len(t.spare); n > 0 {
		a, t.spare = t.spare[n-1], t.spare[:n-1]
	} else {
		a = new(asker)
	}
	t.turn++
	*a = asker{addr: addr, turn: t.turn}
	t.sources[addr] = a
	return a
}

// leave forgets a source that has no questions.
func (t *turns) leave(a *asker) {
	const maxSpare = 64
	if a.first != nil || a.running > 0 {
		return
	}
	delete(t.sources, a.addr)
	if len(t.spare) < maxSpare {
		t.spare = append(t.spare, a)
	}
}
