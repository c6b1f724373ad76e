package sim

import "testing"

// failedSeeds have once found something, in the server or in the simulator.
// They are run for ever. A change of what seeds draw makes them ordinary ones,
// which does no harm.
var failedSeeds = []struct {
	seed  uint64
	about string
}{
	{4, faultFalseWarning},
	{5, faultRestart},
	{6, faultReadErrors},
	{11, faultSessionID},
	{29, faultSize},
	{33, faultOverload},
	{45, faultEarlyData},
	{63, faultClientAlert},
	{99, "a cookie that an attacker has made the server send took a client's handshake on"},
	{154, "a hello that came again when its handshake was over began another"},
	{221, "a client took a flight of its last attempt, and was told to have a wrong key"},
	{273, "the machine stood still when nothing was left to do"},
	{284, "fragments of the hellos of two attempts were put together"},
	{529, "a replayed hello kept a client's own from being answered"},
	{715, "a client was made to say a third hello"},
	{1034, "errors of peers ended Serve, and a wrong key was not told"},
	{4207, "a flight was mixed of two, and had no Certificate"},
}

// TestFailedSeeds runs them.
func TestFailedSeeds(t *testing.T) {
	b := batch{list: []uint64{}}
	about := make(map[uint64]string)
	for _, f := range failedSeeds {
		b.list = append(b.list, f.seed)
		about[f.seed] = f.about
	}
	all, failure := b.run()
	if failure != "" {
		t.Error(failure)
	}
	if len(all) != len(b.list) {
		t.Errorf("%d seeds were run, of %d", len(all), len(b.list))
	}
	for _, r := range all {
		for _, f := range r.Found {
			if f.Known == "" {
				t.Errorf("seed %d (%s): %v", r.Seed, about[r.Seed], f.violation)
			}
		}
	}
}
