// Package dtlsserver is a DTLS 1.2 server that Go services embed: one UDP
// socket, many peers, one handler of four methods, pre-shared keys by a hook or
// certificates, and a cookie exchange that keeps no state for a client until it
// has proven its address.
//
// # Use
//
// A [Server] needs a [PSKFunc], which finds the key of a client, or
// certificates, or both, and in most cases an [EventHandler], which is given
// what clients send:
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
// [Server.Listen] binds and returns; [Server.Serve] takes a socket that is
// already bound and returns when the server has ended. [Server.Close] ends it
// at once, [Server.Shutdown] after the handshakes in progress. Both tell the
// peers.
//
// [LogHandler] turns events into lines of log/slog, [MultiHandler] tells
// several handlers the same, and [NopHandler] is embedded by handlers that care
// about some events only. A [Verifier] also works alone, in front of another
// DTLS implementation.
//
// # Concurrency
//
// The methods of an EventHandler run on the serving loop, one after the other:
// never two at a time for one session. Calls for different sessions may run at
// the same time in a later version, so a handler guards what sessions share.
// Only KindListenFailed may be told by the goroutine that called Listen.
//
// A handler that blocks delays every peer of the socket. Slow work belongs in a
// goroutine: the methods of [Session] are safe anywhere. A handler may call all
// of them and all methods of Server but Serve and Shutdown, which would wait
// for it.
//
// The hooks PSK, GetCertificate and VerifyConnection run off the loop and may
// block; at most MaxHandshakes of them run at a time.
//
// # Ownership of slices
//
// The cipherText and plainText that DatagramReceived is given are lent until it
// returns: the next record overwrites them. The argument of [Session.Write] may
// be reused as soon as Write returns. Keys given to [StaticPSK] and secrets
// given to [NewVerifier] are copied; [PSK].Key is read for a while and not
// changed.
//
// # Security
//
// A client that has not returned a cookie from its address costs the server a
// MAC and one datagram that is smaller than its own; one that cannot do DTLS 1.2
// gets an alert instead, of which a hundred a second are sent. Cookies come before
// everything else, also for addresses that have an open session: a peer that
// has lost its memory may connect anew from its old port (RFC 6347 section
// 4.2.8), and its old session lives until the new handshake has proven the key.
//
// A client with an unknown identity is answered as one with a wrong key: it
// cannot find out which identities exist from what it is sent. Datagrams that
// are not authentic never end an open session. Renegotiation is refused. There
// are AEAD cipher suites only, and no CBC, compression or export suites.
//
// Client certificates are verified, and VerifyConnection is asked, before the
// server's Finished leaves, so a client that is refused never has a session.
//
// ECDHE_PSK and certificate suites have forward secrecy. ECDHE_PSK is preferred
// to plain PSK; certificate suites come last, since they do not say who the
// client is. Session tickets hold a session's secret for a day, sealed with a key
// of the server's: whoever learns that key can read what was resumed.
//
// Plain PSK has limits that no implementation can lift. Whoever learns a key can
// read all sessions recorded under it. A key of low entropy, such as a password,
// can be guessed offline by whoever observes a handshake, or poses as the server
// to a client (RFC 4279 section 7.2): use random keys of 16 bytes or more.
// Identities travel in the clear.
//
// Server.KeyLogWriter receives what it takes to read the sessions. Leave it nil
// but for debugging.
//
// # Limits
//
// Each limit is a field of Server, and none but those per source and per identity
// can be switched off. Zero means the default:
//
//	MaxSessions            100,000     then the identity with most makes room
//	MaxSessionsPerSource   no limit    an IPv4 address or IPv6 /64
//	MaxSessionsPerIdentity no limit    a PSK identity or the key of a certificate
//	MaxHandshakes          2,000       then the source with most makes room
//	MaxHandshakesPerSource 200         an IPv4 address or IPv6 /64
//	MaxHandshakeMemory     16 MiB      of messages in parts and certificates, all together
//	HandshakeTimeout       30 s
//	RetransmitTimeout      1.25 s      then twice that, and so on
//	IdleTimeout            10 minutes  counts what comes from the peer only
//	MaxPSKIdentityLen         256 bytes   a longer identity is an unknown one
//	MaxClientCertificateBytes  16 KiB      of a client's chain
//	MTU                    1200 bytes  of UDP payload, in handshakes only
//
// A message of Session.Write is one record in one datagram, of at most 16384
// bytes or what the client takes (RFC 8449, RFC 6066); keeping it below the
// path MTU is the caller's business.
//
// Events that peers can cause are folded by kind and source, so that nobody can
// flood a log: the first is told at once, then at most one a second, with a
// count.
//
// # What is not there
//
// The package speaks DTLS 1.2 with PSK, ECDHE_PSK and ECDHE certificate suites
// and nothing else: no connection ID, no DTLS 1.3.
//
// On a wildcard address, answers leave from the address that the peer wrote to
// on Linux only. Elsewhere the system chooses, and clients behind connected
// sockets may not see the answer: bind a specific address there.
package dtlsserver
