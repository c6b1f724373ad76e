package main

import (
	"testing"

	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

func TestBroadcast(t *testing.T) {
	t.Parallel()
	server := dtlsservertest.StartServer(t, newServer())
	want := func(message string, clients ...*dtlsservertest.Client) {
		t.Helper()
		for _, client := range clients {
			if got := client.Receive(); got != message {
				t.Errorf("received %q, not %q", got, message)
			}
		}
	}
	alice := server.DialPSK("alice", []byte("\x1a\x2b\x3c\x4d\x5e\x6f"))
	bob := server.DialPSK("bob", []byte("\x6f\x5e\x4d\x3c\x2b\x1a"))
	want("bob has come", alice)
	again := server.DialPSK("bob", []byte("\x6f\x5e\x4d\x3c\x2b\x1a"))
	want("bob has come", alice, bob)
	alice.Write([]byte("hello\x1b[2J"))
	want(`alice: "hello\x1b[2J"`, bob, again)
	again.Write([]byte("bye"))
	again.Close()
	want(`bob: "bye"`, alice, bob)
	want("bob has gone", alice, bob)
}
