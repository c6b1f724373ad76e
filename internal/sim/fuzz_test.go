package sim

import (
	"testing"
	"time"
)

// FuzzSim has the bytes of a fuzzer decide what a world has, and what happens in
// it, so that coverage steers. The worlds are small, since it runs many.
func FuzzSim(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, []byte{})
	}
	f.Add(uint64(1), []byte("every byte is a decision, and what comes behind the last is the seed's"))
	f.Fuzz(func(t *testing.T, seed uint64, b []byte) {
		const most = 4096
		p := plan{seed: seed, bytes: append([]byte{}, b[:min(len(b), most)]...), devices: []int{0, 1, 2}, storm: 20 * time.Second, without: []string{"fleet", "night"}}
		o := run(t, p, false)
		for i := range o.found {
			if explain(&o, &o.found[i]) == "" {
				t.Errorf("%v", o.found[i])
			}
		}
	})
}
