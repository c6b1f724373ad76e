package embedtest

import (
	"testing"

	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

func TestEcho(t *testing.T) {
	key := []byte("a random key of 16 bytes or more")
	server := dtlsservertest.StartServer(t, NewServer(map[string][]byte{"sensor-1": key}))
	client := server.DialPSK("sensor-1", key)
	if reply := client.Ask("hello"); reply != "hello" {
		t.Errorf("the reply is %q", reply)
	}
}
