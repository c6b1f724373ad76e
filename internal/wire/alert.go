package wire

// AlertLevel is the severity of an alert (RFC 5246 section 7.2).
type AlertLevel uint8

// The alert levels.
const (
	LevelWarning AlertLevel = 1
	LevelFatal   AlertLevel = 2
)

// AlertDescription says what an alert is about (RFC 5246 section 7.2).
type AlertDescription uint8

// The alert descriptions that a DTLS 1.2 server sends or that carry a meaning
// of their own when received.
const (
	AlertCloseNotify        AlertDescription = 0
	AlertUnexpectedMessage  AlertDescription = 10
	AlertBadRecordMAC       AlertDescription = 20
	AlertHandshakeFailure   AlertDescription = 40
	AlertBadCertificate     AlertDescription = 42
	AlertUnsupportedCert    AlertDescription = 43
	AlertCertExpired        AlertDescription = 45
	AlertCertUnknown        AlertDescription = 46
	AlertIllegalParameter   AlertDescription = 47
	AlertUnknownCA          AlertDescription = 48
	AlertDecodeError        AlertDescription = 50
	AlertDecryptError       AlertDescription = 51
	AlertProtocolVersion    AlertDescription = 70
	AlertInternalError      AlertDescription = 80
	AlertUserCanceled       AlertDescription = 90
	AlertNoRenegotiation    AlertDescription = 100
	AlertUnrecognizedName   AlertDescription = 112
	AlertUnknownPSKIdentity AlertDescription = 115
	AlertNoALPN             AlertDescription = 120
)

// Alert is the content of an alert record.
type Alert struct {
	Level       AlertLevel
	Description AlertDescription
}

// ParseAlert reads the content of an alert record.
func ParseAlert(b []byte) (Alert, bool) {
	if len(b) != 2 {
		return Alert{}, false
	}
	a := Alert{AlertLevel(b[0]), AlertDescription(b[1])}
	return a, a.Level == LevelWarning || a.Level == LevelFatal
}
