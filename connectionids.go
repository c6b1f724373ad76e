package dtlsserver

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// ConnectionIDs configures connection IDs (RFC 9146), by which a session survives a
// change of its peer's address. The zero value gives a connection ID to every client
// that offers the extension. Nothing changes for other clients.
type ConnectionIDs struct {
	// Disabled turns connection IDs off.
	Disabled bool
	// Generate returns the first part of a connection ID, of 1 to 18 bytes, always of
	// the same length. The server appends two bytes, by which it knows its own. A
	// connection ID that a session has already is not used, and Generate is called
	// again. What it returns is not kept secret, so it must not say more than an
	// observer may know; it should be random, or it links sessions. If nil, it is 8
	// random bytes.
	//
	// Generate is called by Listen or Serve once, and then by the serving loop, which
	// it delays. It must not call methods of Server or Session, and must not panic.
	Generate func() []byte
	// Move determines what it takes for a session to move to the address that its
	// peer now writes from.
	Move MovePolicy
	// EnhancedCheck has the return routability check ask at the old address first (RFC
	// 9853 section 5.2). Then an attacker who forwards the peer's datagrams, faster
	// than the network does, cannot attract the session. Each move takes up to a
	// second longer. It has no effect unless Move is MoveWhenProven.
	EnhancedCheck bool
}

// MovePolicy determines what it takes for a session with a connection ID to move to
// the address that its peer now writes from. Whatever it is, what the peer sends is
// delivered, and the address changes only by a record that is authentic and newer
// than all before it.
type MovePolicy uint8

const (
	// MoveWhenProven moves a session to an address that has been proven: by the
	// return routability check (RFC 9853), if the client supports it, or by
	// Session.ConfirmAddr. Until then, Session.Write sends to both addresses, but to
	// the new one no more than three times what has come from there. During a check,
	// the last message beyond that is sent there as soon as the address is proven.
	MoveWhenProven MovePolicy = iota
	// MoveAtOnce moves a session to a new address without proof. Whoever copies a
	// datagram of the peer's, and sends it from another address before it arrives,
	// gets what the session sends, until the peer's next record. It is for networks
	// that prove addresses themselves, for example ICE.
	MoveAtOnce
	// MoveNever leaves a session at its first address.
	MoveNever
)

const (
	defaultConnectionIDLen = 8 // without its MAC
	maxConnectionIDLen     = 18
	connectionIDMACLen     = 2
	connectionIDKeyLen     = sha256.Size
	// maxConnectionIDDraws bounds how often a connection ID is drawn that a session
	// has already.
	maxConnectionIDDraws = 16
)

// connectionID is a connection ID of a loop, all of which have one length.
type connectionID [maxConnectionIDLen + connectionIDMACLen]byte

func connectionIDOf(cid []byte) (id connectionID) {
	copy(id[:], cid)
	return id
}

// connectionIDLen returns the length of the connection IDs, zero if there are none.
func (s *Server) connectionIDLen(wrong *fieldErrors) int {
	if s.ConnectionIDs.Move > MoveNever {
		wrong.add("ConnectionIDs.Move", "is unknown: %d", s.ConnectionIDs.Move)
	}
	n := defaultConnectionIDLen
	switch {
	case s.ConnectionIDs.Disabled:
		return 0
	case s.ConnectionIDs.Generate != nil:
		if n = len(s.ConnectionIDs.Generate()); n == 0 || n > maxConnectionIDLen {
			wrong.add("ConnectionIDs.Generate", "returns %d bytes, not 1 to %d", n, maxConnectionIDLen)
		}
	}
	return n + connectionIDMACLen
}

// newConnectionIDKey returns a random key for the MACs of connection IDs.
func newConnectionIDKey() []byte {
	key := make([]byte, connectionIDKeyLen)
	_, _ = rand.Read(key) // never fails
	return key
}

// connectionIDs makes connection IDs, and knows those that it has made from others. A
// short MAC is enough for that: it proves nothing, and nobody is told.
type connectionIDs struct {
	cfg *config
	key []byte // nil: none was needed yet
}

// length is that of the connection IDs, in bytes; zero: there are none.
func (c *connectionIDs) length() int { return c.cfg.engine.ConnectionIDLen }

// macOf returns the MAC of a connection ID's first part: the beginning of the SHA-256 of
// the key and that, which is one block. With so little of the hash, nobody can go on from
// there, which is what HMAC, at three times the price, is for.
func (c *connectionIDs) macOf(first []byte) (mac [connectionIDMACLen]byte) {
	if c.key == nil {
		c.key = c.cfg.connectionIDKey()
	}
	var text [connectionIDKeyLen + maxConnectionIDLen]byte
	n := copy(text[:], c.key)
	n += copy(text[n:], first)
	sum := sha256.Sum256(text[:n])
	copy(mac[:], sum[:])
	return mac
}

// made reports whether a connection ID is one of this server's.
func (c *connectionIDs) made(cid []byte) bool {
	if len(cid) != c.length() || len(cid) == 0 {
		return false
	}
	at := len(cid) - connectionIDMACLen
	mac := c.macOf(cid[:at])
	return subtle.ConstantTimeCompare(mac[:], cid[at:]) == 1
}

var errConnectionIDLen = errors.New("dtlsserver: ConnectionIDs.Generate returns connection IDs of different lengths")

// next returns a new connection ID.
func (c *connectionIDs) next() ([]byte, error) {
	id := make([]byte, c.length()-connectionIDMACLen, c.length())
	if generate := c.cfg.connectionIDs.Generate; generate == nil {
		_, _ = rand.Read(id) // never fails
	} else if first := generate(); len(first) != len(id) {
		return nil, errConnectionIDLen
	} else {
		copy(id, first)
	}
	mac := c.macOf(id)
	return append(id, mac[:]...), nil
}

var errConnectionIDsUsed = errors.New("dtlsserver: ConnectionIDs.Generate returns connection IDs that sessions have")

// ConnectionID is called with the session's lock, by the loop only. From then on, the
// session is found by it.
func (m *memory) ConnectionID() []byte {
	s := (*Session)(m)
	l := s.loop
	err := errConnectionIDsUsed
	for range maxConnectionIDDraws {
		id, failed := l.connectionIDs.next()
		if failed != nil {
			err = failed
			break
		}
		if l.register(s, id) {
			return id
		}
	}
	l.outbox.put(Event{Kind: KindConnectionIDFailed, Time: l.now, Remote: s.remote, Local: s.localAddr(), Err: err})
	return nil
}

// register has a session found by a connection ID, unless another is.
func (l *loop) register(s *Session, cid []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := connectionIDOf(cid)
	if l.peers.byCID[id] != nil {
		return false
	}
	l.peers.byCID[id] = s
	s.hasCID = true
	return true
}

// unregisterLocked has a session no longer found by its connection ID.
func (l *loop) unregisterLocked(s *Session) {
	if s.hasCID {
		delete(l.peers.byCID, connectionIDOf(s.eng.ConnectionID()))
		s.hasCID = false
	}
}

// byConnectionID returns the session, as a family of its own, that has a connection ID
// of a record.
func (l *loop) byConnectionID(r engine.Record) (f family, s *Session) {
	cid := r.CID()
	if len(cid) == 0 || len(cid) > len(connectionID{}) {
		return family{}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s = l.peers.byCID[connectionIDOf(cid)]
	return l.aloneLocked(s), s
}
