// Package sim is a simulator of the server and all that it meets: fleets of
// clients as they are in the field, networks that lose, repeat and delay,
// attackers, operators and hooks, on virtual time, everything drawn from one
// seed. A ledger that has all keys reads every datagram and every event and
// says what must never be. The server is the one that users run, through Serve
// and a net.PacketConn of the simulator's.
//
// All of it is in test files: go build has nothing to build here, and nothing
// can import it. See docs/SIMULATOR.md for how to run it and how to add to it.
package sim
