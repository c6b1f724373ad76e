package testpeer

import (
	"bytes"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// What the client does with messages that come in parts and out of order (RFC
// 6347 sections 4.2.2 and 4.2.3).

// partial is a message of which fragments have come.
type partial struct {
	body    []byte
	come    []bool // by byte
	missing int    // bytes
}

// assemble puts fragments together, in whatever order they come.
func (c *Client) assemble(f wire.Fragment) (wire.Fragment, bool) {
	if f.Whole() {
		return f, true
	}
	c.Fragments++
	if c.partials == nil {
		c.partials = make(map[uint16]*partial)
	}
	p := c.partials[f.MessageSeq]
	if p == nil || len(p.body) != int(f.Length) {
		p = &partial{make([]byte, f.Length), make([]bool, f.Length), int(f.Length)}
		c.partials[f.MessageSeq] = p
	}
	for i, b := range f.Body {
		at := int(f.Offset) + i
		if !p.come[at] {
			p.come[at] = true
			p.body[at] = b
			p.missing--
		}
	}
	if p.missing > 0 {
		return f, false
	}
	delete(c.partials, f.MessageSeq)
	f.Offset, f.Body = 0, p.body
	return f, true
}

// keep keeps a message that has overtaken others. One that has been is a
// repetition.
func (c *Client) keep(f wire.Fragment) {
	if c.serverStarted && f.MessageSeq < c.serverSeq {
		return
	}
	if c.early == nil {
		c.early = make(map[uint16]wire.Fragment)
	}
	f.Body = bytes.Clone(f.Body)
	c.early[f.MessageSeq] = f
}

// kept returns the message whose turn it is, if it has come.
func (c *Client) kept() (wire.Fragment, bool) {
	f, ok := c.early[c.serverSeq]
	delete(c.early, c.serverSeq)
	return f, ok
}
