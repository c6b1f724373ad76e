package engine

// What an engine waits for, and the facts of each state. Which messages are expected
// in it is the protocol's to say.

type state uint8

const (
	awaitClientHello state = iota
	awaitResumptionParsing
	awaitResumptionPSK
	awaitResumptionVerdict
	awaitCredential
	awaitServerKeyExchange
	awaitCertificate
	awaitParsing
	awaitClientKeyExchange
	awaitSecret
	awaitPSK
	awaitCertificateVerify
	awaitVerification
	awaitFinished
	awaitVerdict
	established
	closed
)

// facts are those of a state. A nil function stands for never.
type facts struct {
	asks bool // the caller, by an event, and not the client
	// unanswered: nothing that takes the handshake on has come since the verified
	// hello.
	unanswered func(*Engine) bool
	// opens: records of epoch 1 are tried, and not kept for later.
	opens func(*Engine) bool
}

var stateFacts = [...]facts{
	awaitClientHello:       {unanswered: always},
	awaitResumptionParsing: {asks: true},
	awaitResumptionPSK:     {asks: true},
	awaitResumptionVerdict: {asks: true},
	awaitCredential:        {asks: true},
	awaitServerKeyExchange: {asks: true},
	awaitCertificate:       {unanswered: always},
	awaitParsing:           {asks: true},
	awaitClientKeyExchange: {unanswered: func(e *Engine) bool { return !e.certified() }},
	awaitSecret:            {asks: true},
	awaitPSK:               {asks: true},
	awaitCertificateVerify: {},
	awaitVerification:      {asks: true},
	awaitFinished: {
		unanswered: func(e *Engine) bool { return e.hs.resumed != nil },
		opens:      func(e *Engine) bool { return e.hs.changeCipherSpec },
	},
	awaitVerdict: {asks: true, opens: always},
	established:  {opens: always},
	closed:       {},
}

func always(*Engine) bool { return true }

// asking reports whether the engine waits for its caller, and not for the client.
func (e *Engine) asking() bool { return stateFacts[e.state].asks }

// unanswered reports whether nothing has come since the verified hello that takes
// the handshake on.
func (e *Engine) unanswered() bool {
	f := stateFacts[e.state].unanswered
	return f != nil && f(e)
}

// helloAnswered reports whether the server's first flight has been made: the states
// from awaitCertificate on come after it.
func (e *Engine) helloAnswered() bool { return e.state >= awaitCertificate }

// Opening reports whether records of epoch 1 are tried with this engine's
// keys rather than kept for later.
func (e *Engine) Opening() bool {
	f := stateFacts[e.state].opens
	return f != nil && f(e)
}
