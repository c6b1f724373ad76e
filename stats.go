package dtlsserver

import (
	"sync/atomic"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// Stats are the figures of a Server. Those up to HandshakeMemory say how things are;
// the others count since the Server was made.
type Stats struct {
	Sessions   int // open: the handshake is complete
	Handshakes int // in progress
	// HandshakeMemory is how many bytes handshakes in progress have reserved, of
	// which Server.MaxHandshakeMemory may be.
	HandshakeMemory int

	DatagramsReceived uint64
	BytesReceived     uint64
	DatagramsSent     uint64
	BytesSent         uint64

	HelloVerifyRequests uint64 // cookies sent
	VersionAlerts       uint64 // sent to clients without DTLS 1.2 that have not proven their address
	HandshakesStarted   uint64 // cookies returned
	HandshakesCompleted uint64
	HandshakesFailed    uint64
	SessionsClosed      uint64

	MessagesReceived uint64 // given to DatagramReceived
	MessagesSent     uint64 // by Session.Write

	Dropped Drops
}

// Drops count what was dropped, refused or given up, by reason.
type Drops struct {
	Junk            uint64 // datagrams of unknown peers that are no ClientHello
	Truncated       uint64 // datagrams longer than the receive buffer
	Malformed       uint64 // records that are not what their type says
	Epoch           uint64 // records of an epoch that has not begun or is over
	Replayed        uint64 // records seen before, or too old to tell
	Forged          uint64 // records that do not open
	Unauthenticated uint64 // plaintext records where they have no say
	Repeated        uint64 // handshake messages that had been received, as when an answer was lost
	EarlyData       uint64 // application data before the handshake was complete
	Unexpected      uint64 // handshake messages out of their place
	Limit           uint64 // beyond what is kept for one peer in a handshake
	Closed          uint64 // records for a session that has just ended, and datagrams of its peer for some seconds more
	ReplayedHellos  uint64 // hellos with a right cookie that were used before
	Versions        uint64 // hellos without DTLS 1.2 and without a right cookie, whether refused with an alert or not
	WrongCookies    uint64 // hellos that return a new cookie of another hello or address, unanswered for its first second
	Refused         uint64 // hellos with a right cookie at MaxSessions or while shutting down
	Evicted         uint64 // handshakes that gave way to newer ones at MaxHandshakes, MaxHandshakesPerSource or MaxHandshakeMemory
	EvictedSessions uint64 // open sessions that gave way at MaxSessions, MaxSessionsPerSource or MaxSessionsPerIdentity
	SendFull        uint64 // datagrams that the socket had no room for
	SendFailed      uint64 // datagrams that the socket refused
}

// counters are the live figures behind Stats.
type counters struct {
	datagramsReceived, bytesReceived      atomic.Uint64
	datagramsSent, bytesSent              atomic.Uint64
	helloVerifyRequests, versionAlerts    atomic.Uint64
	handshakesStarted                     atomic.Uint64
	handshakesCompleted, handshakesFailed atomic.Uint64
	sessionsClosed                        atomic.Uint64
	messagesReceived, messagesSent        atomic.Uint64
	dropped                               [numDrops]atomic.Uint64
}

// dropReason extends the engine's reasons with those of the server.
type dropReason = engine.Drop

const (
	dropJunk dropReason = engine.DropClosed + 1 + iota
	dropTruncated
	dropReplayedHello
	dropVersion
	dropWrongCookie
	dropRefused
	dropEvicted
	dropEvictedSession
	dropSendFull
	dropSendFailed
	numDrops
)

func (c *counters) drop(why dropReason) { c.dropped[why].Add(1) }

func (c *counters) stats() Stats {
	dropped := func(why dropReason) uint64 { return c.dropped[why].Load() }
	return Stats{
		DatagramsReceived:   c.datagramsReceived.Load(),
		BytesReceived:       c.bytesReceived.Load(),
		DatagramsSent:       c.datagramsSent.Load(),
		BytesSent:           c.bytesSent.Load(),
		HelloVerifyRequests: c.helloVerifyRequests.Load(),
		VersionAlerts:       c.versionAlerts.Load(),
		HandshakesStarted:   c.handshakesStarted.Load(),
		HandshakesCompleted: c.handshakesCompleted.Load(),
		HandshakesFailed:    c.handshakesFailed.Load(),
		SessionsClosed:      c.sessionsClosed.Load(),
		MessagesReceived:    c.messagesReceived.Load(),
		MessagesSent:        c.messagesSent.Load(),
		Dropped: Drops{
			Junk:            dropped(dropJunk),
			Truncated:       dropped(dropTruncated),
			Malformed:       dropped(engine.DropMalformed),
			Epoch:           dropped(engine.DropEpoch),
			Replayed:        dropped(engine.DropReplayed),
			Forged:          dropped(engine.DropForged),
			Unauthenticated: dropped(engine.DropUnauthenticated),
			Repeated:        dropped(engine.DropRepeated),
			EarlyData:       dropped(engine.DropEarlyData),
			Unexpected:      dropped(engine.DropUnexpected),
			Limit:           dropped(engine.DropLimit),
			Closed:          dropped(engine.DropClosed),
			ReplayedHellos:  dropped(dropReplayedHello),
			Versions:        dropped(dropVersion),
			WrongCookies:    dropped(dropWrongCookie),
			Refused:         dropped(dropRefused),
			Evicted:         dropped(dropEvicted),
			EvictedSessions: dropped(dropEvictedSession),
			SendFull:        dropped(dropSendFull),
			SendFailed:      dropped(dropSendFailed),
		},
	}
}

// SessionStats are the figures of one Session.
type SessionStats struct {
	Started          time.Time // when the cookie was returned
	LastReceived     time.Time // when the peer last sent something that opened
	MessagesReceived uint64
	MessagesSent     uint64
	RecordsDropped   uint64 // forged, replayed or otherwise of no use
}
