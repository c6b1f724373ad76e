package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/chacha20"
)

// MaskSampleLen is how many bytes of a record's ciphertext its mask is made of. A
// record that has fewer is to be dropped (RFC 9147 section 4.2.3).
const MaskSampleLen = 16

// Mask makes the masks of the sequence numbers of one epoch and direction (RFC 9147
// section 4.2.3). The zero Mask is for Init. It allocates nothing for a record, and
// is not safe for concurrent use.
type Mask struct {
	block cipher.Block           // of AES; nil: ChaCha20
	key   [chacha20.KeySize]byte // of ChaCha20
	out   [MaskSampleLen]byte
}

// Init makes m that of an AEAD and a key of KeyLen bytes, which is not kept.
func (m *Mask) Init(a *AEAD13, key []byte) error {
	m.Forget()
	if len(key) != a.KeyLen {
		return errors.New("suite: the key for sequence numbers has a wrong length")
	}
	if a.chaCha20 {
		copy(m.key[:], key)
		return nil
	}
	block, err := aes.NewCipher(key)
	m.block = block
	return err
}

// Of returns the mask of a record whose ciphertext begins with sample: its first
// bytes are XORed with what the header has of the sequence number, to encrypt that as
// well as to decrypt it. The mask is m's own, and good until the next call. A sample
// of fewer than MaskSampleLen bytes has none: nil.
func (m *Mask) Of(sample []byte) []byte {
	if len(sample) < MaskSampleLen {
		return nil
	}
	if m.block != nil {
		copy(m.out[:], sample)
		m.block.Encrypt(m.out[:], m.out[:])
		return m.out[:]
	}
	stream, err := chacha20.NewUnauthenticatedCipher(m.key[:], sample[4:MaskSampleLen])
	if err != nil {
		panic(err) // key and nonce have the right lengths
	}
	stream.SetCounter(binary.LittleEndian.Uint32(sample))
	clear(m.out[:])
	stream.XORKeyStream(m.out[:], m.out[:])
	return m.out[:]
}

// Forget clears the key.
func (m *Mask) Forget() { *m = Mask{} }
