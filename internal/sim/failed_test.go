package sim

import "testing"

// failedSeeds have once found something, in the server or in the simulator.
// They are run for ever. A change of what seeds draw makes them ordinary ones,
// which does no harm.
var failedSeeds = []struct {
	seed  uint64
	about string
}{
	{1, faultSessionID},
	{2, faultClientAlert},
	{4, faultCertificate},
	{5, faultFalseWarning},
	{6, faultReadErrors},
	{12, faultEarlyData},
	{16, faultTwice},
	{19, faultSize},
	{22, faultCookieRoom},
	{24, faultKeyUsage},
	{39, faultRestart},
	{63, faultRepeatsCut},
	{81, faultOverload},
	{266, faultSessions},
	{118, "a replayed hello came while a hook ran for another"},
	{127, "records that had been kept were counted against the datagram with the keys"},
	{254, "what an attacker had seen overtook the client's own, by more than a window"},
	{696, "a handler that sleeps made a flight late"},
	{1034, "errors of peers ended Serve, and a wrong key was not told"},
	{1309, "an attacker kept making the server send a client cookies"},
	{2060, "a client gave up, and tried again from the same port"},
	{2475, "failed reads made a flight late"},
	{2585, "hooks filled all places"},
	{3470, "failed reads kept a flight from being sent again"},
	{4162, "the operator rotated secrets twice in a second"},
	{9275, faultMemory},
	{4207, "a flight was mixed of two, and had no Certificate"},
	{4590, "an attacker spoiled one attempt after the other"},
	{4778, "a datagram was replayed from its own address"},
	{5703, "a datagram was too long for a socket that was full"},
	{22, "a device woke up twice in the morning"},
	{57, "a session's records went to a handshake that kept none of them"},
	{98, "what had overtaken the Finished was far behind it"},
	{199, "a handshake that was left completed, by its client's next ChangeCipherSpec"},
	{210, "seven handshakes were begun beside one that was answered"},
	{469, "a client began anew where there was no room"},
	{987, "a device left more sessions open than one may have"},
	{2442, "a repetition crossed the hello that ended it"},
	{3486, "a device slept on when its other handshake had failed"},
	{3536, "who had a key was one more than MaxSessions"},
	{5284, "a client began anew during Shutdown"},
	{5410, "sessions that were closed at once were forgotten"},
	{6237, "a hook answered for a handshake that was left"},
	{6753, "a client that repeats nothing took the cookie of the hello before"},
	{6873, "a handshake that was left completed, the newer one having been refused"},
	{1504, "a client's answer was also given to the handshake that it had left"},
	{2191, "a handshake that was kept back spoke when the newer one had failed"},
	{6995, "a handler slept, and the world saw late what was sent"},
	{7110, "what overtook the Finished was told late"},
	{7280, "a flight was replayed when its handshake was long over"},
	{7478, "a narrow path needed small datagrams before the handshake gave way"},
	{11331, "a client began anew, and what it said opened with the keys of neither handshake"},
	{17572, "hooks that hung held all places for half a minute"},
	{18188, "devices without a certificate, of one source, pushed each other out"},
	{100098, faultRecordAnEvent},
	{101046, faultFewRecords},
	{101267, "an altered hello was whole only in its second fragment"},
	{103467, "a client that repeats nothing spoke while no server was there"},
	{108646, "the machine stood still when the network had healed"},
	{111266, "the ticket of a handshake that was left was taken for another's"},
	{112292, "a flight was said again at a size that changed nothing"},
	{115893, "chains took all of MaxHandshakeMemory, in turns"},
	{200619, "a client that takes a record an event had many to take"},
	{204843, "a record behind the one that ended its session was told of in figures only"},
	{207825, "a NAT gave a client another port before its last flight"},
	{215113, "a device left five sessions open"},
	{3000776, "a session had moved by a handler that slept then"},
	{3001730, "a handler that slept made a session older than it seemed"},
	{5001768, "a handshake had a short connection ID that nobody had seen"},
	{5002588, "a Finished that was repeated was taken for a sign of life"},
	{7001152, "a handler slept between the end of a session and the new use of its connection ID"},
	{7002188, "an address had more open sessions than the ledger remembered"},
	{7299, "a connection ID of eight bytes began with one of one byte"},
	{7589, "a candidate was confirmed that had been asked as another"},
	{217134, "an attacker spoiled the handshake of a client that had refused it"},
	{217619680861887, "a client took a flight for a hello before its last"},
	{217619680865900, "a server with a short first timeout has no less to wait for"},
	{264289942225409, "a device lost its memory so late that nothing more was expected"},
	{139532054616107, "a device began anew during Shutdown, when the network had healed"},
	{139532054625561, "hooks for certificates hung for ten minutes"},
	{80218116862410, "a newer handshake gave way at a limit, and the one that its client had left spoke"},
	{43510586532903, "a handler slept, and a hook's answer came with the next datagram"},
	{410607, "a client's address changed in a handshake with a ticket"},
	{417827, "a handler slept while what had come early was delivered"},
	{419079, "fragments of a Finished's flight came to a newer handshake first"},
	{315002, "two devices with one certificate pushed each other out"},
	{6, "a session that was replaced took one with a connection ID out of the maps"},
	{35, "a Finished had no room behind a connection ID of 255 bytes"},
	{442, "a message about a path was delivered, since it had overtaken the Finished"},
	{526, "a Finished was lost beside an open session with a connection ID"},
	{14, "a path_drop that came late ended the candidate"},
	{24, "a move forgot how many challenges were answered"},
	{185, "a hello came again where its session had been"},
	{756, "a handler slept while a candidate was asked"},
	{786, "flights of two handshakes met in a device that hears at two addresses"},
	{1132, "a device got the flight of who had had its port"},
	{1802, "a record that attackers had sent was kept in a handshake"},
	{1981, "a device went on before each answer"},
	{2138, "a connection ID of zeros was read as records"},
	{3298, "a client put a record with a connection ID before its plaintext"},
	{3505, "the service asked in the step in which it confirmed"},
	{3556, "an attacker's record in plaintext brought one that moved the window"},
	{10333, "a connection ID was another's before its ServerHello was sent"},
	{12234, "an attacker altered a connection ID in a fragment of a hello"},
	{13633, "devices without an identity counted twice, since they had moved"},
	{16699, "a challenge was answered before its address was the candidate"},
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
