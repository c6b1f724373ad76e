package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// ccm is AES in the CCM mode of NIST SP 800-38C (RFC 3610) with 12-byte
// nonces, so the counter and the length field q have 3 bytes. Its scratch
// blocks make it allocate nothing and forbid concurrent use.
type ccm struct {
	block   cipher.Block
	tagLen  int
	mac     [aes.BlockSize]byte // the CBC-MAC so far
	counter [aes.BlockSize]byte // Ctr_i
	stream  [aes.BlockSize]byte // E(Ctr_i)
	mask    [aes.BlockSize]byte // S_0, which hides the tag
}

// maxCCM is the longest message that a q of 3 bytes can name.
const maxCCM = 1<<24 - 1

var errOpen = errors.New("suite: message authentication failed")

func newCCM(key []byte, tagLen int) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return &ccm{block: block, tagLen: tagLen}, nil
}

func (c *ccm) NonceSize() int { return NonceLen }
func (c *ccm) Overhead() int  { return c.tagLen }

// Seal appends the encrypted plaintext and its tag to dst. The plaintext may
// lie where the ciphertext goes.
func (c *ccm) Seal(dst, nonce, plaintext, additional []byte) []byte {
	if len(nonce) != NonceLen || len(plaintext) > maxCCM {
		panic("suite: CCM called with a wrong nonce or too long a message")
	}
	c.start(nonce, len(plaintext), additional)
	n := len(dst)
	dst = append(dst, plaintext...)
	c.absorb(dst[n:])
	c.crypt(dst[n:])
	subtle.XORBytes(c.mac[:], c.mac[:], c.mask[:])
	return append(dst, c.mac[:c.tagLen]...)
}

// Open appends the plaintext to dst when the tag is right. Otherwise it
// returns an error and leaves no plaintext behind.
func (c *ccm) Open(dst, nonce, ciphertext, additional []byte) ([]byte, error) {
	n := len(ciphertext) - c.tagLen
	if len(nonce) != NonceLen || n < 0 || n > maxCCM {
		return nil, errOpen
	}
	var tag [aes.BlockSize]byte
	copy(tag[:], ciphertext[n:])
	c.start(nonce, n, additional)
	start := len(dst)
	dst = append(dst, ciphertext[:n]...)
	c.crypt(dst[start:])
	c.absorb(dst[start:])
	subtle.XORBytes(c.mac[:], c.mac[:], c.mask[:])
	if subtle.ConstantTimeCompare(c.mac[:c.tagLen], tag[:c.tagLen]) != 1 {
		clear(dst[start:])
		return nil, errOpen
	}
	return dst, nil
}

// start sets mac to the CBC-MAC of B_0 and the additional data (appendix A.2)
// and counter and mask to the start of the key stream (appendix A.3).
func (c *ccm) start(nonce []byte, length int, additional []byte) {
	flags := byte((c.tagLen-2)/2<<3 | 3 - 1)
	if len(additional) > 0 {
		flags |= 1 << 6
	}
	c.mac[0] = flags
	copy(c.mac[1:], nonce)
	c.mac[13], c.mac[14], c.mac[15] = byte(length>>16), byte(length>>8), byte(length)
	c.block.Encrypt(c.mac[:], c.mac[:])
	if len(additional) > 0 {
		var head [2]byte // enough below 2^16 - 2^8 bytes; a record's are 13
		binary.BigEndian.PutUint16(head[:], uint16(len(additional)))
		c.mac[0] ^= head[0]
		c.mac[1] ^= head[1]
		n := subtle.XORBytes(c.mac[2:], c.mac[2:], additional)
		c.block.Encrypt(c.mac[:], c.mac[:])
		c.absorb(additional[n:])
	}

	c.counter[0] = 3 - 1
	copy(c.counter[1:], nonce)
	c.counter[13], c.counter[14], c.counter[15] = 0, 0, 0
	c.block.Encrypt(c.mask[:], c.counter[:])
}

// absorb adds b, padded with zeros to whole blocks, to the CBC-MAC.
func (c *ccm) absorb(b []byte) {
	for len(b) > 0 {
		n := subtle.XORBytes(c.mac[:], c.mac[:], b)
		c.block.Encrypt(c.mac[:], c.mac[:])
		b = b[n:]
	}
}

// crypt adds the key stream from Ctr_1 on to b, in place.
func (c *ccm) crypt(b []byte) {
	for len(b) > 0 {
		for i := 15; i >= 13; i-- {
			c.counter[i]++
			if c.counter[i] != 0 {
				break
			}
		}
		c.block.Encrypt(c.stream[:], c.counter[:])
		n := subtle.XORBytes(b, b, c.stream[:])
		b = b[n:]
	}
}
