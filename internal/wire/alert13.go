package wire

// The alert descriptions that a DTLS 1.3 server sends beside those of 1.2 (RFC 8446
// section 6.2, RFC 9147 section 9).
const (
	AlertRecordOverflow       AlertDescription = 22
	AlertTooManyCIDsRequested AlertDescription = 52
	AlertMissingExtension     AlertDescription = 109
	AlertUnsupportedExtension AlertDescription = 110
	AlertCertificateRequired  AlertDescription = 116
)
