// Package dtlsserver is a DTLS 1.2 server for Go services to embed. It serves
// many peers on one UDP socket and delivers events and application data to one
// handler with four methods. It supports certificates and pre-shared keys, which
// a hook looks up, and a cookie exchange that keeps no state for a client until
// it has proven its address.
//
// # Use
//
// A [Server] needs a [PSKFunc], which finds the key of a client, or certificates,
// or both. Most servers also have an [EventHandler], which receives what clients
// send:
//
//	server := &dtlsserver.Server{
//		PSK: dtlsserver.StaticPSK(map[string][]byte{"sensor-1": key}),
//		Handler: dtlsserver.HandlerFuncs{
//			OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) {
//				s.Write(plainText)
//			},
//		},
//	}
//	if err := server.Listen("udp", ":4433"); err != nil {
//		return err
//	}
//	defer server.Close()
//
// [Server.Listen] binds a socket and returns. [Server.Serve] takes a socket that
// is already bound, and returns when the server has stopped. [Server.Close] stops
// the server at once, [Server.Shutdown] after the handshakes in progress. Both
// send close_notify to the peers.
//
// [LogHandler] logs events to log/slog, and [MultiHandler] calls several
// handlers. A handler that needs only some events embeds [NopHandler]. A
// [Verifier] can also be used alone, in front of another DTLS implementation.
//
// # Concurrency
//
// The methods of an EventHandler run on the serving loop, one after the other,
// and never two at a time for one session. In a later version, calls for
// different sessions may run at the same time, so a handler must guard what its
// sessions share. Only KindListenFailed may be delivered on the goroutine that
// called Listen.
//
// A handler that blocks delays every peer of the socket. Slow work belongs in a
// goroutine: the methods of [Session] are safe for concurrent use. A handler may
// call all of them, and all methods of Server except Serve and Shutdown, which
// would deadlock.
//
// The hooks PSK, GetCertificate and VerifyConnection run off the loop and may
// block. At most MaxHandshakes of them run at a time.
//
// # Ownership of slices
//
// The slices cipherText and plainText of DatagramReceived are valid only until it
// returns: the next record overwrites them. The argument of [Session.Write] may
// be reused when Write returns. Keys passed to [StaticPSK] and secrets passed to
// [NewVerifier] are copied. [PSK].Key is read soon after the PSKFunc has
// returned, and not changed.
//
// # Security
//
// A client that has not returned a cookie from its address costs the server a
// MAC and one datagram that is smaller than its own. A client that does not
// support DTLS 1.2 is sent an alert instead; at most a hundred of these alerts
// are sent per second. The cookie exchange comes first, also for an address that
// has an open session. A peer that has lost its state may connect again from its
// old port (RFC 6347 section 4.2.8), and its old session stays open until the new
// handshake has proven the key.
//
// A client with an unknown identity is answered like one with a wrong key, so it
// cannot find out from the answers which identities exist. Datagrams that are not
// authentic never end an open session. Renegotiation is refused. All cipher
// suites are AEAD suites; there is no CBC, no compression and no export suite.
//
// Client certificates are verified, and VerifyConnection is called, before the
// server's Finished is sent, so a client that is refused never has a session.
//
// ECDHE_PSK and certificate suites have forward secrecy. ECDHE_PSK is preferred
// to plain PSK. Certificate suites come last, since they do not identify the
// client. Session tickets contain the secret of a session for a day, sealed with
// a key of the server: whoever learns that key can read the resumed sessions.
//
// Plain PSK has limits that no implementation can remove. Whoever learns a key
// can read all sessions recorded under it. Whoever observes a handshake, or poses
// as the server to a client, can guess a key of low entropy, such as a password,
// offline (RFC 4279 section 7.2): use random keys of 16 bytes or more. Identities
// are sent in the clear.
//
// Server.KeyLogWriter receives secrets with which the sessions can be read. Leave
// it nil except for debugging.
//
// # Addresses that change
//
// The session of a client that offers connection IDs (RFC 9146) has one, by which it
// is found whatever address the client writes from, as after a NAT has forgotten it.
// It moves to the new address when the return routability check (RFC 9853), or the
// application, has proven that. Until then, messages are sent to both addresses, and
// to the new one no more than three times what has come from there. [ConnectionIDs]
// has the choices. KindPeerMoved reports each move, and [Session.RemoteAddr] returns
// the address where the session is.
//
// # Limits
//
// Each limit is a field of Server. Only the limits per source and per identity
// can be disabled. If a field is zero, the default is used:
//
//	MaxSessions                100,000     beyond it, the identity with most loses one
//	MaxSessionsPerSource       no limit    per IPv4 address or IPv6 /64
//	MaxSessionsPerIdentity     no limit    per PSK identity or certificate key
//	MaxHandshakes              2,000       at the bound, the source with most loses one
//	MaxHandshakesPerSource     200         per IPv4 address or IPv6 /64
//	MaxHandshakeMemory         16 MiB      for incomplete messages and certificates, in all
//	HandshakeTimeout           30 s
//	RetransmitTimeout          1.25 s      doubled with each retransmission
//	IdleTimeout                10 minutes  without a record from the peer
//	MaxPSKIdentityLen          256 bytes   a longer identity is unknown
//	MaxClientCertificateBytes  16 KiB      for a client's chain
//	MTU                        1200 bytes  of UDP payload, in handshakes only
//
// Session.Write sends a message as one record in one datagram, of at most 16384
// bytes or the client's limit (RFC 8449, RFC 6066). The caller must keep it below
// the path MTU.
//
// Events that peers can cause are folded by kind and source, so that nobody can
// flood a log: the first is delivered at once, and then at most one a second,
// with a count.
//
// # What is not supported
//
// The package supports DTLS 1.2 with PSK, ECDHE_PSK and ECDHE certificate suites,
// and no DTLS 1.3.
//
// On a wildcard address, answers are sent from the address that the peer wrote to
// on Linux only. On other systems, the system chooses the address, and clients
// with connected sockets may not receive the answer: bind a specific address
// there.
package dtlsserver
