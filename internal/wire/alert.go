package wire

import "strconv"

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
	AlertCloseNotify       AlertDescription = 0
	AlertUnexpectedMessage AlertDescription = 10
	AlertHandshakeFailure  AlertDescription = 40
	AlertBadCertificate    AlertDescription = 42
	AlertUnsupportedCert   AlertDescription = 43
	AlertCertExpired       AlertDescription = 45
	AlertCertUnknown       AlertDescription = 46
	AlertIllegalParameter  AlertDescription = 47
	AlertUnknownCA         AlertDescription = 48
	AlertAccessDenied      AlertDescription = 49
	AlertDecodeError       AlertDescription = 50
	AlertDecryptError      AlertDescription = 51
	AlertProtocolVersion   AlertDescription = 70
	AlertInternalError     AlertDescription = 80
	AlertUserCanceled      AlertDescription = 90
	AlertNoRenegotiation   AlertDescription = 100
	AlertUnrecognizedName  AlertDescription = 112
	AlertNoALPN            AlertDescription = 120
)

// alertNames are the names that IANA has registered, of those that TLS 1.2, TLS 1.3
// and DTLS 1.3 use.
var alertNames = map[AlertDescription]string{
	AlertCloseNotify: "close_notify", AlertUnexpectedMessage: "unexpected_message", 20: "bad_record_mac",
	22: "record_overflow", AlertHandshakeFailure: "handshake_failure", AlertBadCertificate: "bad_certificate",
	AlertUnsupportedCert: "unsupported_certificate", 44: "certificate_revoked",
	AlertCertExpired: "certificate_expired", AlertCertUnknown: "certificate_unknown",
	AlertIllegalParameter: "illegal_parameter", AlertUnknownCA: "unknown_ca", AlertAccessDenied: "access_denied",
	AlertDecodeError: "decode_error", AlertDecryptError: "decrypt_error", AlertProtocolVersion: "protocol_version",
	71: "insufficient_security", AlertInternalError: "internal_error", 86: "inappropriate_fallback",
	AlertUserCanceled: "user_canceled", AlertNoRenegotiation: "no_renegotiation", 109: "missing_extension",
	110: "unsupported_extension", AlertUnrecognizedName: "unrecognized_name",
	113: "bad_certificate_status_response", 115: "unknown_psk_identity", 116: "certificate_required",
	AlertNoALPN: "no_application_protocol", 52: "too_many_cids_requested",
}

// String returns the alert's registered name, or its number.
func (d AlertDescription) String() string {
	if name, ok := alertNames[d]; ok {
		return name
	}
	return strconv.Itoa(int(d))
}

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
