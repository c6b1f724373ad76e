// Package dtlsservertest runs a dtlsserver.Server in a test, as net/http/httptest
// runs an http.Server: on the loopback interface or on a virtual network that
// loses, delays, repeats and reorders datagrams, with a client that connects in
// one call.
//
//	func TestEcho(t *testing.T) {
//		server := dtlsservertest.NewServer(t, echo)
//		client := server.Dial()
//		if reply := client.Ask("hello"); reply != "hello" {
//			t.Errorf("the reply is %q", reply)
//		}
//		server.Events.Want(dtlsserver.KindHandshakeComplete, "after Dial")
//	}
//
// [StartServer] does the same for a server that the caller has made, with keys
// and settings of its own, with [Server.DialPSK] for its clients;
// [NewUnstartedServer] leaves everything to be changed before [Server.Start].
// [Server.DialContext] connects clients with a [ClientConfig] of the caller's, and
// [Connect] such clients to any other server.
//
// # Cleanup and leaks
//
// Everything is ended by t.Cleanup, or by [Server.Close] before. What does not
// end then fails the test: a handler or a hook that does not return, and
// goroutines that they, the server or its clients have started and that still
// run. The failure shows their stacks.
//
// # Waiting
//
// No test needs to sleep. A [Recorder] records all events and messages that the
// server has delivered to its handler, and waits for those to come. Each wait ends after
// Server.Timeout, and fails the test with what was recorded, the open sessions and
// the goroutines of the server that do more than wait for a datagram.
//
// # testing/synctest
//
// On a [Network] all of it works in the bubbles of testing/synctest, where
// timeouts and lost datagrams cost no time. Make the network and the server in the
// bubble:
//
//	synctest.Test(t, func(t *testing.T) {
//		server := dtlsservertest.NewUnstartedServer(t, &dtlsserver.Server{Handler: echo})
//		server.Network = dtlsservertest.NewNetwork(t, dtlsservertest.Link{Loss: 0.3, Delay: 50 * time.Millisecond})
//		server.Start()
//		client := server.Dial()
//		...
//	})
//
// # Addresses that change
//
// [Network.Rebind] gives a client another address in the middle of a session, as a NAT
// does. The clients of this package have no connection IDs (RFC 9146), so the server
// does not know them any more, and they must connect anew. Sessions of clients that
// have connection IDs go on: connect one of another library over [Network.Dial].
//
// # Security
//
// Keys are random, certificates are made for the test, and neither appears in what
// is logged. The clients are good for tests, and for nothing else.
package dtlsservertest
