package engine

import (
	"bytes"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// Connection IDs (RFC 9146), and the messages by which a peer's path is checked (RFC
// 9853). Where the peer is, is its caller's to know.

// Host is what an engine needs of its caller in a handshake.
type Host interface {
	Budget
	// ConnectionID returns a connection ID for the association, of
	// Config.ConnectionIDLen bytes, that no other has, or nil if there is none to be
	// had. The engine keeps it.
	ConnectionID() []byte
}

// connectionIDs are those of an association whose client has offered the extension.
type connectionIDs struct {
	ours       []byte // which the client's sealed records have
	theirs     []byte // which ours have; empty: none
	checkPaths bool   // both sides may
}

// settleConnectionIDs gives a client a connection ID, if it is to have one, and
// remembers its own. That costs a byte of each record, which counts like one of the
// content.
func (e *Engine) settleConnectionIDs(x *wire.ClientExtensions) {
	if x.ConnectionID == nil || e.cfg.ConnectionIDLen == 0 || e.hs.host == nil {
		return
	}
	ours := e.hs.host.ConnectionID()
	if ours == nil {
		return
	}
	e.cids = &connectionIDs{
		ours:       ours,
		theirs:     bytes.Clone(x.ConnectionID),
		checkPaths: x.ReturnRoutability && e.cfg.ReturnRoutability,
	}
	if x.RecordSizeLimit != 0 && len(x.ConnectionID) > 0 {
		e.limit = min(x.RecordSizeLimit-1, wire.MaxPlaintext)
	}
}

// ConnectionID is the connection ID that the client's sealed records have, or nil if
// they have none.
func (e *Engine) ConnectionID() []byte {
	if e.cids == nil {
		return nil
	}
	return e.cids.ours
}

// peerCID is the connection ID that sealed records for the client have, or empty.
func (e *Engine) peerCID() []byte {
	if e.cids == nil {
		return nil
	}
	return e.cids.theirs
}

// ChecksPaths reports whether the return routability check was negotiated.
func (e *Engine) ChecksPaths() bool { return e.cids != nil && e.cids.checkPaths }

// PathMessage is a message of the return routability check.
type PathMessage = wire.PathMessage

// PathMessageType is the type of a PathMessage.
type PathMessageType = wire.PathMessageType

// The types of message (RFC 9853 section 4).
const (
	PathChallenge = wire.PathChallenge
	PathResponse  = wire.PathResponse
	PathDrop      = wire.PathDrop
)

// receivePath takes the content of a record about a path. Before the handshake is
// complete, nothing is checked. What is not known is ignored (RFC 9853 section 4).
func (e *Engine) receivePath(content []byte) Result {
	m, ok := wire.ParsePathMessage(content)
	switch {
	case e.state != established:
		return Result{Drop: DropUnexpected}
	case !ok:
		return Result{}
	}
	return Result{Path: &m}
}

// SealPath appends a record with the message to dst. The last record that there may
// be is for close_notify.
func (e *Engine) SealPath(dst []byte, m PathMessage) ([]byte, error) {
	if e.state != established || e.sealer.Left() <= 1 {
		return dst, ErrNotEstablished
	}
	var content [1 + wire.PathCookieLen]byte
	return e.sealer.Append(dst, e.peerCID(), wire.ContentReturnRoutability, nil, m.Append(content[:0]))
}
