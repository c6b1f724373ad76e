package suite

import (
	"crypto"
	"crypto/sha512"
	"encoding"
	"hash"
)

// Digest computes one hash after another. It allocates only when the function
// changes. The zero Digest is for Begin.
type Digest struct {
	hash.Hash
	of crypto.Hash
}

// Begin begins a hash with the function.
func (d *Digest) Begin(of crypto.Hash) {
	if d.of != of {
		d.Hash, d.of = of.New(), of
	}
	d.Reset()
}

// hmac is HMAC (RFC 2104) with one key after another. Package crypto/hmac keeps
// the same two states of the hash, but allocates a kilobyte for each key, of
// which a handshake has two.
type hmac struct {
	Digest
	inner, outer []byte // states of the hash, behind the padded key
	pad          [sha512.BlockSize]byte
	scratch      [MaxHashLen]byte
}

// setKey keys h for the function.
func (h *hmac) setKey(of crypto.Hash, key []byte) {
	h.Begin(of)
	if len(key) > h.BlockSize() {
		h.Write(key)
		key = h.Sum(h.scratch[:0])
	}
	pad := h.pad[:h.BlockSize()]
	clear(pad)
	copy(pad, key)
	h.inner = h.behind(h.inner[:0], pad, 0x36)
	h.outer = h.behind(h.outer[:0], pad, 0x36^0x5c)
	clear(pad)
}

// behind appends the state of the hash behind pad, each byte of which it
// changes first.
func (h *hmac) behind(dst, pad []byte, change byte) []byte {
	for i := range pad {
		pad[i] ^= change
	}
	h.Reset()
	h.Write(pad)
	state, err := h.Hash.(encoding.BinaryAppender).AppendBinary(dst)
	if err != nil {
		panic(err) // no hash of a Suite fails
	}
	return state
}

// restore brings the hash back to a state.
func (h *hmac) restore(state []byte) {
	if err := h.Hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		panic(err) // it was saved by the same hash
	}
}

// sum appends HMAC(key, text) to dst.
func (h *hmac) sum(dst, text []byte) []byte {
	h.restore(h.inner)
	h.Write(text)
	inner := h.Sum(h.scratch[:0])
	h.restore(h.outer)
	h.Write(inner)
	return h.Sum(dst)
}

// forget clears the key, and all that was made of it but what the hash has in
// hand.
func (h *hmac) forget() {
	clear(h.inner)
	clear(h.outer)
	clear(h.pad[:])
	clear(h.scratch[:])
	if h.Hash != nil {
		h.Reset()
	}
}
