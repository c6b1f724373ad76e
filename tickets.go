package dtlsserver

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"sync"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// ticketKeys seals session tickets (RFC 5077 section 4): the key's name, a
// nonce, and the state under AES-256-GCM. The zero ticketKeys draws a new key
// every TicketLifetime and opens tickets of the one before.
type ticketKeys struct {
	mu    sync.Mutex // guards all following
	keys  []ticketKey
	fixed bool      // they were set, not drawn
	drawn time.Time // when keys[0] was
}

type ticketKey struct {
	name [16]byte
	aead cipher.AEAD
}

// newTicketKey derives the name and the AEAD from a secret.
func newTicketKey(secret [32]byte) ticketKey {
	derive := func(use string) []byte {
		mac := hmac.New(sha256.New, secret[:])
		mac.Write([]byte(use))
		return mac.Sum(nil)
	}
	block, err := aes.NewCipher(derive("dtlsserver ticket key"))
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has blocks of 16 bytes
	}
	return ticketKey{[16]byte(derive("dtlsserver ticket name")), aead}
}

// set replaces the keys; none: they are drawn again.
func (k *ticketKeys) set(secrets [][32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys, k.fixed = nil, len(secrets) > 0
	for _, secret := range secrets {
		k.keys = append(k.keys, newTicketKey(secret))
	}
}

// current returns the keys of the time, the one to seal with first.
func (k *ticketKeys) current(now time.Time) ([]ticketKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fixed || len(k.keys) > 0 && now.Sub(k.drawn) < engine.TicketLifetime {
		return k.keys, nil
	}
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, err
	}
	keys := []ticketKey{newTicketKey(secret)}
	if len(k.keys) > 0 && now.Sub(k.drawn) < 2*engine.TicketLifetime {
		keys = append(keys, k.keys[0])
	}
	k.keys, k.drawn = keys, now
	return keys, nil
}

// Seal makes a ticket.
func (k *ticketKeys) Seal(now time.Time, state []byte) ([]byte, error) {
	keys, err := k.current(now)
	if err != nil {
		return nil, err
	}
	key := keys[0]
	ticket := append(make([]byte, 0, len(key.name)+key.aead.NonceSize()+len(state)+key.aead.Overhead()), key.name[:]...)
	nonce := ticket[len(ticket) : len(ticket)+key.aead.NonceSize()]
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	ticket = ticket[:len(ticket)+len(nonce)]
	return key.aead.Seal(ticket, nonce, state, key.name[:]), nil
}

// Open opens a ticket of Seal's, unless its key is gone.
func (k *ticketKeys) Open(now time.Time, ticket []byte) (state []byte, ok bool) {
	keys, err := k.current(now)
	if err != nil {
		return nil, false
	}
	for _, key := range keys {
		sealed, named := bytes.CutPrefix(ticket, key.name[:])
		if n := key.aead.NonceSize(); named && len(sealed) >= n {
			state, err := key.aead.Open(nil, sealed[:n], sealed[n:], key.name[:])
			return state, err == nil
		}
	}
	return nil, false
}

// SetSessionTicketKeys sets the keys that session tickets are sealed with. The
// first key seals new tickets; every key opens them. To rotate, put a new key in
// front and remove the last one after 24 hours. Servers with the same keys resume
// each other's sessions. Without keys, the server generates its own and changes
// them daily. SetSessionTicketKeys may be called at any time.
//
// A key of only zeros, which was probably never set, and two equal keys are
// errors. The keys are then not changed.
func (s *Server) SetSessionTicketKeys(keys ...[32]byte) error {
	secrets := make([][]byte, len(keys))
	for i := range keys {
		secrets[i] = keys[i][:]
	}
	if err := checkSecrets(secrets); err != nil {
		return fmt.Errorf("dtlsserver: SetSessionTicketKeys: key %w", err)
	}
	s.tickets.set(keys)
	return nil
}

// checkSecrets says which of several secrets cannot be one, counted from zero.
func checkSecrets(secrets [][]byte) error {
	for i, secret := range secrets {
		if isZero(secret) {
			return fmt.Errorf("%d has only zero bytes: was it ever set?", i)
		}
		for j := range i {
			if subtle.ConstantTimeCompare(secret, secrets[j]) == 1 {
				return fmt.Errorf("%d is the same as %d", i, j)
			}
		}
	}
	return nil
}

// isZero reports, in a time that does not depend on its bytes, whether a secret
// has no other than zeros.
func isZero(secret []byte) bool {
	return subtle.ConstantTimeCompare(secret, make([]byte, len(secret))) == 1
}
