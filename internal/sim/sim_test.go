package sim

import (
	"testing"
)

func TestOne(t *testing.T) {
	for seed := range uint64(20) {
		o := run(t, plan{seed: seed}, false)
		t.Logf("%d: %v %d datagrams, %x, %v", seed, o.lasted, o.datagrams, o.hash, o.drawn.features)
		for _, v := range o.found {
			t.Logf("   %v", v)
		}
	}
}
