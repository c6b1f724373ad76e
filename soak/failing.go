package main

// Clients that must not get in.

import "errors"

// fail makes a handshake, which must not succeed.
func (v *visit) fail(h *hand) error {
	v.scenario.tried.Add(1)
	err := h.verify()
	if err == nil {
		err = h.finish(1)
	}
	if err == nil {
		v.scenario.completed.Add(1)
		return errors.New("the handshake is complete")
	}
	v.scenario.failed.Add(1)
	return nil
}

func wrongKey(v *visit) error {
	h := newHand(v.conn, v.name(identityGood))
	h.Key = []byte("not the right key")
	return v.fail(h)
}

func refused(kind string) func(*visit) error {
	return func(v *visit) error { return v.fail(newHand(v.conn, v.name(kind))) }
}

// half returns the cookie and says nothing more.
func half(v *visit) error {
	h := newHand(v.conn, v.name(identityGood))
	v.scenario.tried.Add(1)
	v.scenario.failed.Add(1)
	return h.verify()
}
