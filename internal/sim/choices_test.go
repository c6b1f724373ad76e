package sim

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// choices are where a decision comes from: a seed, or the bytes of a fuzzer,
// and the seed when those are used up.
type choices struct {
	r     *rand.Rand
	bytes *[]byte // of all choices of a world together; nil: none
}

// newChoices returns the choices of one thing in a world. They do not depend on
// what else there is, so that without one device the others do the same.
func newChoices(p *plan, of string, n int) *choices {
	h := fnv.New64a()
	h.Write([]byte(of))
	c := &choices{r: rand.New(rand.NewPCG(p.seed, h.Sum64()+uint64(n)*0x9e3779b97f4a7c15))}
	if p.bytes != nil {
		c.bytes = &p.bytes
	}
	return c
}

// next returns the next byte of the fuzzer's.
func (c *choices) next() (b byte, ok bool) {
	if c.bytes == nil || len(*c.bytes) == 0 {
		return 0, false
	}
	b = (*c.bytes)[0]
	*c.bytes = (*c.bytes)[1:]
	return b, true
}

// below returns a number from 0 to n-1.
func (c *choices) below(n int) int {
	if b, ok := c.next(); ok {
		return int(b) % n
	}
	return c.r.IntN(n)
}

// chance is true with the probability p.
func (c *choices) chance(p float64) bool {
	if b, ok := c.next(); ok {
		return float64(b) < p*256
	}
	return c.r.Float64() < p
}

// span returns a time between two, in whole microseconds.
func (c *choices) span(from, to time.Duration) time.Duration {
	if to <= from {
		return from
	}
	const unit = time.Microsecond
	if b, ok := c.next(); ok {
		return (from + (to-from)*time.Duration(b)/256).Truncate(unit)
	}
	return (from + time.Duration(c.r.Int64N(int64(to-from)))).Truncate(unit)
}

// oneOf returns one of several.
func oneOf[T any](c *choices, of ...T) T { return of[c.below(len(of))] }
