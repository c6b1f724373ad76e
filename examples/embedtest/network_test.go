package embedtest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

// TestBadNetwork: a device that connects over a network that loses a third of the
// datagrams, and falls silent. In a bubble the retransmissions and the ten minutes
// take no time.
func TestBadNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := []byte("a random key of 16 bytes or more")
		server := dtlsservertest.NewUnstartedServer(t, NewServer(map[string][]byte{"sensor-1": key}))
		server.Network = dtlsservertest.NewNetwork(t, dtlsservertest.Link{
			Loss:  0.3,
			Delay: 50 * time.Millisecond,
			Seed:  1, // of what is lost
		})
		server.Start()
		server.DialPSK("sensor-1", key)

		time.Sleep(dtlsserver.DefaultIdleTimeout)
		closed := server.Events.Want(dtlsserver.KindSessionClosed, "after ten minutes of silence")
		if closed.Err != dtlsserver.ErrIdleTimeout {
			t.Errorf("the session was closed for %v", closed.Err)
		}
	})
}
