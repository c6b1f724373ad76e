package main

// What nobody has asked for.

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

type attackKind int

const (
	attackFlood attackKind = iota
	attackJunk
	attackStray // verified hellos of others
	attackReplay
	attackForgery
	attackForgedAlert
	attackPlaintext
	attackEpoch
	attackMalformed
	attackReplayedHello
	attackBareHello
	attackHandshake
	numAttacks
)

var attackNames = [numAttacks]string{
	"bare hellos from many addresses", "junk", "hellos with the cookie of another address", "replayed records",
	"forged records", "forged alerts, sealed", "alerts and data, plaintext", "records of other epochs", "malformed records",
	"replayed hellos", "bare hellos", "second handshakes, left half done",
}

// flood sends hellos without a cookie from ever changing addresses. It does not
// catch up when it is late.
func (s *soak) flood(ctx context.Context, perSecond int) {
	const ticks = 100 // a second
	sockets := make([]*socket, 64)
	defer func() {
		for _, c := range sockets {
			if c != nil {
				c.Close()
			}
		}
	}()
	next, due := 0, 0
	every(ctx, time.Second/ticks, func() {
		next = (next + 1) % len(sockets)
		if sockets[next] != nil {
			sockets[next].Close()
		}
		var err error
		if sockets[next], err = s.dial(); err != nil {
			s.faults.add("flood: %v", err)
			sockets[next] = nil
			return
		}
		for due += perSecond; due >= ticks; due -= ticks {
			if c := sockets[rand.IntN(len(sockets))]; c != nil {
				s.shoot(c, attackFlood, testpeer.New("", nil, rand.Uint64()).Hello())
			}
		}
	})
}

// shoot sends an attack and counts it.
func (s *soak) shoot(c *socket, kind attackKind, datagram []byte) {
	if _, err := c.Write(datagram); err == nil {
		s.attacks[kind].Add(1)
	}
}

// junk sends what is no hello, and hellos of others, from unknown addresses.
func (s *soak) junk(ctx context.Context) {
	every(ctx, 20*time.Millisecond, func() {
		c, err := s.dial()
		if err != nil {
			s.faults.add("junk: %v", err)
			return
		}
		defer c.Close()
		noise := make([]byte, rand.IntN(2000))
		for i := range noise {
			noise[i] = byte(rand.Uint32())
		}
		hello := testpeer.New("", nil, rand.Uint64()).Hello()
		s.shoot(c, attackJunk, noise)
		s.shoot(c, attackJunk, nil)
		s.shoot(c, attackJunk, hello[:1+rand.IntN(len(hello)-1)])
		s.shoot(c, attackJunk, record(wire.ContentAlert, 0, 0, []byte{2, 40}))
		s.shoot(c, attackJunk, record(wire.ContentApplicationData, 1, rand.Uint64N(wire.MaxSequence), noise))
		if stray := s.hellos.any(); stray != nil {
			s.shoot(c, attackStray, stray)
		}
	})
}

func record(t wire.ContentType, epoch uint16, seq uint64, content []byte) []byte {
	return append(wire.AppendRecordHeader(nil, t, wire.VersionDTLS12, epoch, seq, len(content)), content...)
}

// attack sends one thing from the client's own address that must change
// nothing.
func (h *hand) attack() {
	s := h.conn.soak
	genuine := h.Sealed(wire.ContentApplicationData, []byte("never sent"))
	altered := func(edit func(b []byte)) []byte {
		b := bytes.Clone(genuine)
		edit(b)
		return b
	}
	const typeAt, epochAt, sequenceAt = 0, 4, 9 // in a record's header
	switch kind := attackReplay + attackKind(rand.IntN(int(numAttacks-attackReplay))); kind {
	case attackReplay:
		s.shoot(h.conn, kind, h.last)
		s.shoot(h.conn, kind, bytes.Join(h.records, nil))
	case attackForgery:
		s.shoot(h.conn, kind, altered(func(b []byte) { b[len(b)-1] ^= 1 }))
		// Far ahead: it must not move the replay window.
		s.shoot(h.conn, kind, altered(func(b []byte) { b[sequenceAt] ^= 0x80 }))
	case attackForgedAlert:
		s.shoot(h.conn, kind, altered(func(b []byte) { b[typeAt] = byte(wire.ContentAlert) }))
	case attackPlaintext:
		s.shoot(h.conn, kind, h.Plain(wire.ContentAlert, []byte{1, 0}))
		s.shoot(h.conn, kind, h.Plain(wire.ContentAlert, []byte{2, 40}))
		s.shoot(h.conn, kind, h.Plain(wire.ContentApplicationData, []byte("plaintext")))
	case attackEpoch:
		s.shoot(h.conn, kind, altered(func(b []byte) { b[epochAt] = 2 }))
	case attackMalformed:
		s.shoot(h.conn, kind, genuine[:len(genuine)-1])
		s.shoot(h.conn, kind, nil)
	case attackReplayedHello:
		s.shoot(h.conn, kind, h.hello)
	case attackBareHello:
		s.shoot(h.conn, kind, testpeer.New("", nil, rand.Uint64()).Hello())
	case attackHandshake:
		if h.intruder == nil {
			h.intruder = testpeer.New("", nil, rand.Uint64())
			s.shoot(h.conn, kind, h.intruder.Hello())
		}
	}
}

// recent keeps some datagrams.
type recent struct {
	mu   sync.Mutex // guards all following
	kept [][]byte
}

func (r *recent) add(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) < 256 {
		r.kept = append(r.kept, b)
	} else {
		r.kept[rand.IntN(len(r.kept))] = b
	}
}

// any returns one of them, or nil.
func (r *recent) any() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) == 0 {
		return nil
	}
	return r.kept[rand.IntN(len(r.kept))]
}
