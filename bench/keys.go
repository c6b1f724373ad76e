//go:build linux

package main

// The key schedule and the records of the load's clients, of TLS 1.2 with
// AES-128-GCM and SHA-256 (RFC 5246 sections 5 and 8.1, RFC 5288, RFC 7627), and with
// connection IDs (RFC 9146 sections 4 and 5.3). They
// are not the library's, so that the load costs the same whatever becomes of that.

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

const (
	masterLen   = 48
	keyLen      = 16
	saltLen     = 4
	explicitLen = 8
	tagLen      = 16
	// recordOverhead is by how much a record is longer than its content.
	recordOverhead = wire.RecordHeaderLen + explicitLen + tagLen
)

// newPRF returns the PRF of a secret, keyed once for all uses.
func newPRF(secret []byte) hash.Hash { return hmac.New(sha256.New, secret) }

// prf fills out with PRF(secret, label, seed) (RFC 5246 section 5).
func prf(out []byte, mac hash.Hash, label string, seed []byte) {
	labelled := append([]byte(label), seed...)
	a := labelled
	var sum [2][sha256.Size]byte
	for len(out) > 0 {
		mac.Reset()
		mac.Write(a)
		a = mac.Sum(sum[0][:0])
		mac.Reset()
		mac.Write(a)
		mac.Write(labelled)
		out = out[copy(out, mac.Sum(sum[1][:0])):]
	}
}

// pskPremaster is the premaster secret of a pre-shared key (RFC 4279 section 2).
func pskPremaster(key string) []byte {
	return appendUint16Prefixed(appendUint16Prefixed(nil, make([]byte, len(key))), []byte(key))
}

// appendUint16Prefixed appends b after its length.
func appendUint16Prefixed(dst, b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(b))), b...)
}

// direction is one direction's AEAD. It opens and seals records of epoch 1.
type direction struct {
	aead       cipher.AEAD
	cid        []byte // of all records; nil: none
	nonce      [saltLen + explicitLen]byte
	additional []byte // room for it
	next       uint64 // sequence number, of what is sealed
}

// directions makes both directions' keys of a master secret, the client's first.
func directions(master hash.Hash, clientRandom, serverRandom *[wire.RandomLen]byte) (pair [2]*direction, err error) {
	var block [2 * (keyLen + saltLen)]byte
	prf(block[:], master, "key expansion", append(append([]byte(nil), serverRandom[:]...), clientRandom[:]...))
	for i := range pair {
		b, err := aes.NewCipher(block[i*keyLen:][:keyLen])
		if err != nil {
			return pair, err
		}
		d := new(direction)
		if d.aead, err = cipher.NewGCM(b); err != nil {
			return pair, err
		}
		copy(d.nonce[:], block[2*keyLen+i*saltLen:][:saltLen])
		pair[i] = d
	}
	return pair, nil
}

// authenticate sets the additional data.
func (d *direction) authenticate(epochAndSeq uint64, t wire.ContentType, length int) {
	a := d.additional[:0]
	if d.cid == nil {
		a = binary.BigEndian.AppendUint64(a, epochAndSeq)
		a = append(a, byte(t))
		a = binary.BigEndian.AppendUint16(a, wire.VersionDTLS12)
	} else {
		a = binary.BigEndian.AppendUint64(a, 1<<64-1)
		a = append(a, byte(wire.ContentCID), byte(len(d.cid)), byte(wire.ContentCID))
		a = binary.BigEndian.AppendUint16(a, wire.VersionDTLS12)
		a = append(binary.BigEndian.AppendUint64(a, epochAndSeq), d.cid...)
	}
	d.additional = binary.BigEndian.AppendUint16(a, uint16(length))
}

// seal appends a record.
func (d *direction) seal(dst []byte, t wire.ContentType, content []byte) []byte {
	epochAndSeq := 1<<48 | d.next
	binary.BigEndian.PutUint64(d.nonce[saltLen:], epochAndSeq)
	length := len(content)
	if d.cid == nil {
		dst = wire.AppendRecordHeader(dst, t, wire.VersionDTLS12, 1, d.next, explicitLen+length+tagLen)
	} else {
		length++ // the type
		dst = wire.AppendRecordHeaderCID(dst, wire.VersionDTLS12, 1, d.next, d.cid, explicitLen+length+tagLen)
	}
	d.next++
	d.authenticate(epochAndSeq, t, length)
	dst = append(dst, d.nonce[saltLen:]...)
	start := len(dst)
	dst = append(dst, content...)
	if d.cid != nil {
		dst = append(dst, byte(t))
	}
	return d.aead.Seal(dst[:start], d.nonce[:], dst[start:], d.additional)
}

var errForged = errors.New("a record does not open")

// open appends a record's content, and returns its type too.
func (d *direction) open(dst []byte, r wire.Record) ([]byte, wire.ContentType, error) {
	length := len(r.Payload) - explicitLen - tagLen
	if length < 0 || !bytes.Equal(r.CID(), d.cid) {
		return dst, 0, errForged
	}
	copy(d.nonce[saltLen:], r.Payload)
	d.authenticate(1<<48|r.Seq, r.Type, length)
	out, err := d.aead.Open(dst, d.nonce[:], r.Payload[explicitLen:], d.additional)
	if err != nil {
		return dst, 0, errForged
	}
	if d.cid == nil {
		return out, r.Type, nil
	}
	last := len(out) - 1 // this library pads nothing
	if last < len(dst) {
		return dst, 0, errForged
	}
	return out[:last], wire.ContentType(out[last]), nil
}
