package dtlsserver

import (
	"sync/atomic"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// Stats are the statistics of a Server. Sessions, Handshakes and HandshakeMemory
// are current values; the other fields count since the Server was created.
type Stats struct {
	Sessions   int // open: the handshake is complete
	Handshakes int // in progress
	// HandshakeMemory is how many bytes the handshakes in progress have reserved,
	// out of Server.MaxHandshakeMemory.
	HandshakeMemory int

	DatagramsReceived uint64
	BytesReceived     uint64
	DatagramsSent     uint64
	BytesSent         uint64

	HelloVerifyRequests uint64 // cookies sent
	VersionAlerts       uint64 // sent to clients without DTLS 1.2 whose address is not proven
	HandshakesStarted   uint64 // cookies returned
	HandshakesCompleted uint64
	HandshakesFailed    uint64
	SessionsClosed      uint64
	PeersMoved          uint64 // changes of the addresses of open sessions

	MessagesReceived uint64 // delivered to DatagramReceived
	MessagesSent     uint64 // with Session.Write

	Dropped Drops
}

// Drops counts what was dropped, refused or given up, by reason.
type Drops struct {
	UnexpectedDatagrams uint64 // of unknown peers, that are not a ClientHello: KindUnexpectedDatagram
	Truncated           uint64 // datagrams longer than the receive buffer
	Malformed           uint64 // records that are not well formed for their type
	Epoch               uint64 // records of an epoch that has not begun or has ended
	Replayed            uint64 // records received before, or too old to tell
	Forged              uint64 // records that could not be decrypted
	Unauthenticated     uint64 // plaintext records that are ignored because anybody can send them
	Repeated            uint64 // handshake messages received before, for example because an answer was lost
	EarlyData           uint64 // application data before the handshake was complete
	UnexpectedMessages  uint64 // handshake messages out of order
	// ConnectionIDs counts records with a connection ID where none is due, as in
	// plaintext, or of another session, or, in a handshake, from another address; and
	// those without one where one is due.
	ConnectionIDs        uint64
	UnknownConnectionIDs uint64 // datagrams with the connection ID of a session that has ended
	Limit                uint64 // beyond what is kept of one peer in a handshake
	Closed               uint64 // records of a session that has just ended, and its peer's datagrams for some seconds more
	ReplayedHellos       uint64 // hellos with a valid cookie that were used before
	Versions             uint64 // hellos without DTLS 1.2 and without a valid cookie, refused with an alert or silently
	WrongCookies         uint64 // hellos with a cookie less than a second old that is for another hello or address
	Refused              uint64 // hellos with a valid cookie, refused at a limit or while shutting down
	Evicted              uint64 // handshakes given up for others at MaxHandshakes, MaxHandshakesPerSource or MaxHandshakeMemory
	EvictedSessions      uint64 // open sessions closed for others at MaxSessions, MaxSessionsPerSource or MaxSessionsPerIdentity
	SendFull             uint64 // datagrams that the socket had no room for
	SendFailed           uint64 // datagrams that the socket refused
}

// counters are the live figures behind Stats.
type counters struct {
	datagramsReceived, bytesReceived      atomic.Uint64
	datagramsSent, bytesSent              atomic.Uint64
	helloVerifyRequests, versionAlerts    atomic.Uint64
	handshakesStarted                     atomic.Uint64
	handshakesCompleted, handshakesFailed atomic.Uint64
	sessionsClosed, peersMoved            atomic.Uint64
	messagesReceived, messagesSent        atomic.Uint64
	dropped                               [numDrops]atomic.Uint64
}

// dropReason extends the engine's reasons with those of the server.
type dropReason = engine.Drop

const (
	dropJunk dropReason = engine.DropClosed + 1 + iota
	dropUnknownConnectionID
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
		PeersMoved:          c.peersMoved.Load(),
		MessagesReceived:    c.messagesReceived.Load(),
		MessagesSent:        c.messagesSent.Load(),
		Dropped: Drops{
			UnexpectedDatagrams:  dropped(dropJunk),
			Truncated:            dropped(dropTruncated),
			Malformed:            dropped(engine.DropMalformed),
			Epoch:                dropped(engine.DropEpoch),
			Replayed:             dropped(engine.DropReplayed),
			Forged:               dropped(engine.DropForged),
			Unauthenticated:      dropped(engine.DropUnauthenticated),
			Repeated:             dropped(engine.DropRepeated),
			EarlyData:            dropped(engine.DropEarlyData),
			UnexpectedMessages:   dropped(engine.DropUnexpected),
			ConnectionIDs:        dropped(engine.DropConnectionID),
			UnknownConnectionIDs: dropped(dropUnknownConnectionID),
			Limit:                dropped(engine.DropLimit),
			Closed:               dropped(engine.DropClosed),
			ReplayedHellos:       dropped(dropReplayedHello),
			Versions:             dropped(dropVersion),
			WrongCookies:         dropped(dropWrongCookie),
			Refused:              dropped(dropRefused),
			Evicted:              dropped(dropEvicted),
			EvictedSessions:      dropped(dropEvictedSession),
			SendFull:             dropped(dropSendFull),
			SendFailed:           dropped(dropSendFailed),
		},
	}
}

// SessionStats are the statistics of a Session.
type SessionStats struct {
	Started          time.Time // when the client returned its cookie
	LastReceived     time.Time // when the last authentic record came from the peer
	MessagesReceived uint64
	MessagesSent     uint64
	RecordsDropped   uint64 // forged, replayed or otherwise useless
}
