package sim

// The mutants: small faults that the simulator must find. Each replaces a piece
// of a function's text by another. What it cannot find would say what the ledger
// lacks.

type mutant struct {
	name     string
	file     string // from the module's top
	function string // in which old is, once
	old, new string
}

var mutants = []mutant{
	// Records.
	{"window one too small", "internal/record/window.go", "Fresh", "lag < windowSize", "lag < windowSize-1"},
	{"window forgets what came out of order", "internal/record/window.go", "Mark", "w.seen |= 1 << (w.next - 1 - seq)", "_ = w.seen"},
	{"no replay window", "internal/record/window.go", "Fresh", "if seq >= w.next {", "if true {"},
	{"window marked before the record opens", "internal/record/record.go", "Open", "out, t, err := o.Reopen(dst, r)", "o.window.Mark(r.Seq)\n\tout, t, err := o.Reopen(dst, r)"},
	{"sequence number not raised", "internal/record/record.go", "Append", "\ts.next++\n", "\ts.next += s.next & 1 ^ 1\n"},
	{"nonce used twice", "internal/record/record.go", "setNonce", "^epochAndSeq)", "^epochAndSeq&^1)"},
	{"a rest spoils the key", "internal/record/record.go", "Rest", "p.aead = nil", "p.aead, p.key[0] = nil, 0"},

	// Cookies.
	{"cookie not bound to the port", "verifier.go", "sum", "remote.Port())", "0)"},
	{"cookie not bound to the address", "verifier.go", "sum", "ip[:]...", "ip[:0]..."},
	{"cookie not bound to the hello", "verifier.go", "sum", "hello.Random)", "hello.Random[:0])"},
	{"cookie good for minutes", "verifier.go", "verifyHello", "i := interval - 1;", "i := interval - 8;"},
	{"cookie of the last interval refused", "verifier.go", "verifyHello", "i := interval - 1;", "i := interval;"},
	{"previous secret forgotten", "verifier.go", "verifyHello", "range *m.secrets {", "range (*m.secrets)[:1] {"},
	{"cookie compared in its first byte", "verifier.go", "verifyHello", "m.cookie[:cookieLen], c)", "m.cookie[:1], c[:1])"},
	{"message_seq not echoed", "internal/engine/hello.go", "AppendHelloVerifyRequest", "length, h.MessageSeq, 0", "length, 0*h.MessageSeq, 0"},

	// What is unauthentic, and what is said to strangers.
	{"junk is answered", "receive.go", "dropUnknown", "l.counters.drop(why)\n", "_ = l.conn.Send(m.Buf[:m.N], m.Remote, m.Local)\n\tl.counters.drop(why)\n"},
	{"data in plaintext delivered", "internal/engine/engine.go", "Receive", "return Result{Drop: e.receivePlainLate(r)}", "return Result{Data: append(buf, r.Payload...)}"},
	{"alert in plaintext ends a session", "internal/engine/engine.go", "receivePlainLate", "return DropUnauthenticated", "if r.Type == wire.ContentAlert {\n\t\te.close(Event{Cause: CausePeerClosed})\n\t}\n\treturn DropUnauthenticated"},
	{"hello of the open session begins a handshake", "receive.go", "receiveHello", "f.open != nil && f.open.sameHello(hello, cookie)", "f.open != nil && hello == nil"},

	// Handshakes.
	{"Finished compared over half", "internal/engine/clientflight.go", "receiveFinished", "ConstantTimeCompare(body, want)", "ConstantTimeCompare(body[:6], want[:6])"},
	{"CertificateVerify not checked", "internal/engine/clientflight.go", "receiveCertificateVerify", "if !right {", "if !right && len(signature) == 0 {"},
	{"client certificate not verified", "chains.go", "verify", "chains, err = certificates[0].Verify(options)", "chains, _ = certificates[0].Verify(options)"},
	{"client certificate of any usage", "chains.go", "verify", "x509.ExtKeyUsageClientAuth", "x509.ExtKeyUsageAny"},
	{"no client certificate needed", "internal/engine/clientflight.go", "receiveCertificate", "count == 0 && e.cfg.RequireClientCertificate", "count == 0 && !e.cfg.RequestClientCertificate"},
	{"resumed before Finished", "internal/engine/resumption.go", "answerResumption", "e.addFinished()\n", "e.addFinished()\n\tif e.hs != nil {\n\t\te.establish(now)\n\t\treturn\n\t}\n"},
	{"random of the server forgotten", "internal/engine/serverhello.go", "answerHello", "io.ReadFull(e.cfg.Rand, e.serverRandom[:])", "io.ReadFull(e.cfg.Rand, e.serverRandom[:0])"},
	{"fragments put to the wrong place", "internal/engine/reassembly.go", "add", "copy(a.body[start:], f.Body)", "copy(a.body[start/2:], f.Body)"},
	{"memory of fragments not given back", "internal/engine/reassembly.go", "reset", "a.budget.Reserve(-n)", "a.budget.Reserve(0 * n)"},
	{"MTU not heeded", "internal/engine/size.go", "cutLarge", "e.most(m, e.cfg.MTU-used)", "e.most(m, e.cfg.MTU+100-used)"},

	// Timers.
	{"first timeout not heeded", "internal/engine/timeout.go", "firstTimeout", "return cfg.FirstTimeout", "return DefaultFirstTimeout"},
	{"timer does not double", "internal/engine/timeout.go", "Timeout", "min(2*e.hs.timeout, MaxTimeout)", "min(e.hs.timeout, MaxTimeout)"},
	{"flight not sent again", "internal/engine/timeout.go", "Timeout", "e.retransmit(now, true)", ""},
	{"timer set once", "loop.go", "housekeep", "q.Set(&s.timer, next)", "_ = next"},
	{"idle since the handshake", "drive.go", "receive", "s.hear(now)", ""},
	{"idle session is not told", "rest.go", "timeout", "s.endLocked(ErrIdleTimeout, withCloseNotify)", "s.endLocked(ErrIdleTimeout, silently)"},
	{"close_notify not answered", "internal/engine/sealed.go", "receiveAlert", "e.sendAlert(wire.LevelWarning, wire.AlertCloseNotify)", ""},

	{"fatal alert ignored", "internal/engine/sealed.go", "receiveAlert", "case a.Level == wire.LevelFatal:", "case a.Level == wire.LevelFatal && len(content) == 0:"},

	// Limits and figures.
	{"one handshake too many", "admission.go", "makeWay", "h.count < most", "h.count <= most"},
	{"one handshake of a source too many", "admission.go", "makeWay", "int(src.count) >= mostOfSource", "int(src.count) > mostOfSource"},
	{"one session too many", "sessions.go", "beyondAll", "o.count <= l.cfg.maxSessions", "o.count <= l.cfg.maxSessions+1"},
	{"handshakes not counted down", "handshakes.go", "remove", "\th.count--\n", ""},
	{"sessions not counted down", "sessions.go", "remove", "\to.count--", "\to.count -= 0"},
	{"hooks not counted down", "hooks.go", "answeredLocked", "lane.running--", "lane.running -= 0"},
	{"a replaced session stays", "drive.go", "establishedLocked", "old.end(ErrReconnected, silently)", "_ = old"},
	{"junk counted twice", "receive.go", "dropUnknown", "l.counters.drop(why)\n", "l.counters.drop(why)\n\tl.counters.drop(why)\n"},
	{"bytes miscounted", "receive.go", "receive", "Add(uint64(m.N))", "Add(uint64(m.N + 1))"},
	{"full socket told as a failure", "loop.go", "sent", "l.counters.drop(dropSendFull)", "l.counters.drop(dropSendFailed)"},
	{"folded events lost", "outbox.go", "first", "state.pending.Count + ev.Count", "ev.Count"},
	{"folded events not told at the end", "loop.go", "finish", "l.outbox.flush(now, everything)", "l.outbox.flush(now, onlyDue)"},
	{"each timeout told as a wrong key", "internal/engine/timeout.go", "Timeout", "WrongKey: e.hs.unopened &&", "WrongKey:"},
	{"wrong key not told", "internal/engine/sealed.go", "receiveSealed", "e.hs.unopened = true", "e.hs.unopened = false"},

	// Two handshakes of an address, and what was mended after the simulator had
	// found it, or could have.
	{"nobody is remembered when closed", "peers.go", "remove", "l.closed.put(pathOf(s), l.since(last.Time))", ""},
	{"early data forgotten", "internal/engine/early.go", "keepOvertaking", "e.hs.overtaken = e.hs.overtaken || drop == DropNone", ""},
	{"alert in plaintext forgotten", "drive.go", "withAlert", "!ev.Alerted ||", "ev.Alerted ||"},
	{"a Finished that comes again is not answered", "internal/engine/sealed.go", "takeFinishedAgain", "e.retransmit(now, !now.Before(e.resendFrom))", ""},
	{"nonsense is let pass", "internal/engine/sealed.go", "receiveAlert", "e.fail(wire.AlertDecodeError, \"malformed alert\")", ""},
	{"sessions do not age", "rest.go", "expireLocked", "age > 0 {", "age > 0 && s.keyEnds {"},
	{"resumed sessions are young", "drive.go", "eventsLocked", "s.establishedLocked(now, ev.Created)", "s.establishedLocked(now, now)"},
	{"newer versions are not negotiated down", "internal/engine/hello.go", "offersDTLS12", "clientVersion <= wire.VersionDTLS12", "clientVersion == wire.VersionDTLS12"},
	{"any hello is told of its version", "receive.go", "receiveHello", "!hello.Negotiable():", "len(hello.Body) > 0:"},
	{"the old handshake goes on speaking", "drive.go", "mutedLocked", "s.silenced || s.loop.isMuted(s)", "s.silenced"},
	{"it speaks when it completes", "drive.go", "mutedLocked", "s.silenced && !s.spoke", "s.silenced && s.spoke"},
	{"repeated fragments are bad", "receive.go", "receiveRecords", "repeated < maxRepeated", "repeated < maxBad"},

	// Connection IDs.
	{"a forged record makes a candidate", "internal/engine/engine.go", "Receive", "result.Authentic = result.Drop == DropNone", "result.Authentic = result.Drop == DropNone || r.HasCID()"},
	{"an older record makes a candidate", "internal/engine/engine.go", "Receive", "result.Newest = newest && result.Authentic", "result.Newest = (newest || r.HasCID()) && result.Authentic"},
	{"a replayed record makes a candidate", "internal/engine/engine.go", "Receive", "result.Authentic = result.Drop == DropNone\n\t\tresult.Newest = newest && result.Authentic", "result.Authentic = result.Drop == DropNone || result.Drop == DropReplayed\n\t\tresult.Newest = result.Authentic && (newest || result.Drop == DropReplayed)"},
	{"budget not counted", "moves.go", "sendLocked", "m.sent += int64(len(datagram))", "m.sent += 0"},
	{"challenges not in the budget", "moves.go", "sendPathLocked", "m.sent += int64(len(datagram))", "m.sent += 0"},
	{"budget of the service not counted", "moves.go", "sendCandidateLocked", "m.sent += int64(len(datagram))", "m.sent += 0"},
	{"budget too large", "moves.go", "affords", "amplification*m.received", "(amplification+1)*m.received"},
	{"a response from anywhere moves", "moves.go", "cameFromLocked", "m := s.moving\n", "if r := result.Path; r != nil && r.Type == engine.PathResponse && s.moving.hasCandidate() && s.moving.proves(r) {\n\t\ts.moveLocked(now, s.moving.candidate)\n\t}\n\tm := s.moving\n"},
	{"a cookie of the last candidate moves", "moves.go", "cameFromNewLocked", "m.forget()", "m.received, m.sent = 0, 0"},
	{"cookie of a challenge compared in its first byte", "moves.go", "proves", "response.Cookie == cookie", "response.Cookie[0] == cookie[0]"},
	{"only the last cookie is good", "moves.go", "proves", "m.cookies[:m.challenges]", "m.cookies[m.challenges-1 : m.challenges]"},
	{"candidate kept when the peer is back", "moves.go", "cameFromLocked", "m.hasCandidate() && result.Newest", "m.hasCandidate() && result.Newest && m.answersOld(result.Path, engine.PathChallenge)"},
	{"candidate kept when the old address answers", "moves.go", "cameFromLocked", "case m.answersOld(result.Path, engine.PathResponse):", "case at == pathOf(s) && result.Newest && m.answersOld(result.Path, engine.PathResponse):"},
	{"candidate is asked for ever", "moves.go", "challengeAgainLocked", "\t\tm.forget()\n\t\treturn\n", "\t\tm.challenges = 0\n"},
	{"challenges too soon", "moves.go", "challengeLocked", "now.Add(challengeTimeout)", "now.Add(challengeTimeout / 2)"},
	{"challenges all alike", "moves.go", "challengeLocked", "cookie[:])", "cookie[:0])"},
	{"old address not asked first", "moves.go", "beginCheckLocked", "if !s.loop.cfg.connectionIDs.EnhancedCheck {", "if s.eng.Established() {"},
	{"a late path_drop ends the candidate", "moves.go", "cameFromLocked", "case m.answersOld(result.Path, engine.PathDrop):", "case m.hasCandidate() && m.check == checkOld && m.answersOld(result.Path, engine.PathDrop):"},
	{"response sent to the session's address", "moves.go", "answerChallengeLocked", "s.sendPathLocked(at,", "s.sendPathLocked(pathOf(s),"},
	{"responses not bounded", "moves.go", "answerChallengeLocked", "m.responses == maxPathResponses", "m.responses == 255"},
	{"responses forgotten at a move", "moves.go", "moveLocked", "m.forget()", "m.forget()\n\t\ts.moving = nil"},
	{"move without the previous address", "moves.go", "moveLocked", "s.raise(Event{Kind: KindPeerMoved, Time: now, PreviousRemote: previous})", "_ = previous\n\ts.raise(Event{Kind: KindPeerMoved, Time: now})"},
	{"source stays when a session moves", "moves.go", "move", "src != s.source {", "src == nil {"},
	{"more sessions of one source than may be", "moves.go", "move", "int(src.open) >= most", "int(src.open) > most"},
	{"what waited is not sent", "moves.go", "moveLocked", "held = m.held", "held = m.held[:0]"},
	{"the first waits and not the last", "moves.go", "sendLocked", "m.check != checkNone && len(datagram) <= maxHeld", "m.check != checkNone && len(datagram) <= maxHeld && len(m.held) == 0"},
	{"a candidate that the service has not asked is confirmed", "moves.go", "ConfirmAddr", " && s.moving.asked", ""},
	{"a check that was short does not go on", "moves.go", "cameFromNewLocked", "s.moving.check == checkShort {", "s.moving.check == checkNone {"},
	{"moves not counted", "moves.go", "moveLocked", "\ts.loop.counters.peersMoved.Add(1)\n", ""},
	{"write to the candidate only", "moves.go", "sendLocked", "err := s.loop.conn.Send(datagram, s.remote, s.local.Addr())", "err := error(nil)\n\tif !s.moving.affords(len(datagram)) {\n\t\terr = s.loop.conn.Send(datagram, s.remote, s.local.Addr())\n\t}"},
	{"write to the old address only", "moves.go", "sendLocked", "m.affords(len(datagram))", "m.affords(len(datagram)) && m.check != checkNone"},
	{"any address is confirmed", "moves.go", "ConfirmAddr", "s.moving.candidate.remote == addr && ", ""},
	{"moves though it must not", "moves.go", "cameFromNewLocked", "case policy == MoveNever:", "case policy > MoveNever:"},
	{"session with a connection ID found by its address", "receive.go", "receive", "if engine.HasConnectionID(datagram) {", "if engine.HasConnectionID(datagram) && l.familyOf(m.Remote, m.Local) == (family{}) {"},
	{"another's record behind one's own", "receive.go", "recipient", "return f, bytes.Equal(r.CID(), a.cid)", "to, s := l.byConnectionID(r)\n\t\treturn to, s != nil || bytes.Equal(r.CID(), a.cid)"},
	{"another's record behind one in plaintext", "receive.go", "recipient", "s != nil && (s == f.open || s == f.first || s == f.second)", "s != nil"},
	{"no connection ID needed", "internal/engine/engine.go", "Receive", "r.HasCID() != (r.Epoch > 0 && e.cids != nil)", "r.HasCID() && (r.Epoch == 0 || e.cids == nil)"},
	{"handshake goes on from elsewhere", "receive.go", "receiveByConnectionID", "case f.first != nil && at != pathOf(s):", "case f.second != nil && at != pathOf(s):"},
	{"record without a connection ID taken by the open session", "receive.go", "notOpened", " || drop == engine.DropConnectionID", ""},
	{"connection ID left when its session ends", "connectionids.go", "unregisterLocked", "delete(l.peers.byCID, connectionIDOf(s.eng.ConnectionID()))", ""},
	{"connection ID given twice", "connectionids.go", "register", "l.peers.byCID[id] != nil", "l.peers.byCID[id] == s"},
	{"MAC of connection IDs not checked", "connectionids.go", "made", "== 1", ">= 0"},
	{"a new session ends another's at its address", "peers.go", "promote", "if open.hasCID && (", "if open.hasCID && !s.halfOpen && ("},
	{"a session that is alone again is not found", "peers.go", "remove", "\tl.peers.fill(pathOf(s))\n", ""},
	{"a session that the other has left is not found", "moves.go", "move", "\tl.peers.fill(from)\n", "\t_ = from\n"},
	{"a replaced session takes another out", "peers.go", "takeOut", "\tcase p.beside[pathOf(s)] != s:\n\t\treturn\n", ""},
	{"no room for a Finished", "internal/engine/size.go", "recut", "max(e.most(m, int(size)), leastPiece)", "e.most(m, int(size))"},
	{"anything that has overtaken the Finished is delivered", "internal/engine/sealed.go", "opens", "t != wire.ContentHandshake", "t == wire.ContentApplicationData || t == wire.ContentAlert"},
}
