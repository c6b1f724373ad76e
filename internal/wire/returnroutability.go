package wire

// PathMessageType is the type of a PathMessage.
type PathMessageType uint8

// The types of RFC 9853 section 4.
const (
	PathChallenge PathMessageType = 0
	PathResponse  PathMessageType = 1
	PathDrop      PathMessageType = 2
)

// PathCookieLen is the length of a PathMessage's cookie, in bytes.
const PathCookieLen = 8

// PathMessage is the content of a record of ContentReturnRoutability (RFC 9853
// section 4).
type PathMessage struct {
	Type   PathMessageType
	Cookie [PathCookieLen]byte
}

// ParsePathMessage reads a message of one of the types that there are.
func ParsePathMessage(content []byte) (m PathMessage, ok bool) {
	if len(content) != 1+PathCookieLen || PathMessageType(content[0]) > PathDrop {
		return PathMessage{}, false
	}
	m.Type = PathMessageType(content[0])
	copy(m.Cookie[:], content[1:])
	return m, true
}

// Append appends the message.
func (m *PathMessage) Append(dst []byte) []byte {
	return append(append(dst, byte(m.Type)), m.Cookie[:]...)
}
