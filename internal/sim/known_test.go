package sim

// The faults that are known: what the ledger's rules find until they are
// mended. A finding that none of these explains fails the run.

// known is a fault that is known.
type known struct {
	rule  string
	about string // what it is, in words
	when  func(o *outcome, t traits, v *violation) bool
}

// Those that are mended are why some of failedSeeds are there.
const (
	faultCertificate   = "a certificate is chosen that the client cannot use"
	faultMemory        = "chains that come in tickets take more than MaxHandshakeMemory"
	faultKeyUsage      = "a client certificate that is not for signatures is accepted"
	faultRepeatsCut    = "a repeated flight of many records is not read to its end"
	faultOverload      = "honest clients push each other out"
	faultRestart       = "a client that begins anew in a handshake is locked out"
	faultClientAlert   = "the client's reason is lost"
	faultSize          = "datagrams do not get smaller"
	faultCookieRoom    = "the cookie pushes the suites out of the first fragment"
	faultFalseWarning  = "a close is followed by a false warning"
	faultSessions      = "at MaxSessions a new session is refused, or gives way"
	faultReadErrors    = "errors of peers end Serve"
	faultTwice         = "a flight goes out twice"
	faultSessionID     = "a client that draws a session_id for each hello never connects"
	faultEarlyData     = "the first data after a resumption is lost"
	faultFewRecords    = "a client that takes few records of a datagram is short of time, since flights get that small only when they have been lost"
	faultRecordAnEvent = "our last flight in one datagram is too much for a client that takes a record an event, and never asks again"
)

// knownFaults, of which the first that explains a finding counts.
var knownFaults = []known{}

// explain says which known fault a finding is of, or nothing.
func explain(o *outcome, v *violation) string {
	for _, k := range knownFaults {
		if k.rule == v.Rule && k.when(o, o.traits[v.Device], v) {
			return k.about
		}
	}
	return ""
}
