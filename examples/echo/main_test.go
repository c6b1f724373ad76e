package main

import (
	"testing"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

func TestEcho(t *testing.T) {
	t.Parallel()
	logger := dtlsservertest.NewRecorder(t)
	server := dtlsservertest.StartServer(t, newServer(logger))
	client := server.DialPSK("sensor-1", []byte("\x1a\x2b\x3c\x4d\x5e\x6f"))
	for _, message := range []string{"hello", "", "\x00\xff"} {
		if reply := client.Ask(message); reply != message {
			t.Errorf("the reply to %q is %q", message, reply)
		}
	}
	logger.Want(dtlsserver.KindHandshakeComplete, "after the client has connected")
}
