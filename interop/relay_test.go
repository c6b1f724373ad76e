package interop

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// startRelay starts a relay that ends with the test, and then logs what came if
// the test has failed.
func startRelay(t *testing.T, server string, decide func(datagram) verdict) *relay {
	t.Helper()
	r, err := newRelay(server, decide)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.close()
		if t.Failed() {
			t.Logf("the relay's datagrams:\n%v", r)
		}
	})
	return r
}

// relayed is a relay with sockets at both ends of it.
type relayed struct {
	t      *testing.T
	relay  *relay
	server *net.UDPConn
	client *net.UDPConn
	back   net.Addr // of the client as the server sees it
}

func newRelayed(t *testing.T, decide func(datagram) verdict) *relayed {
	t.Helper()
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	r := &relayed{t: t, server: server, relay: startRelay(t, server.LocalAddr().String(), decide)}
	r.client = dialUDP(t, r.relay.addr())
	for _, c := range []net.Conn{r.server, r.client} {
		c.SetDeadline(time.Now().Add(patience))
	}
	return r
}

// send sends datagrams to one end.
func (r *relayed) send(to direction, texts ...string) {
	r.t.Helper()
	for _, text := range texts {
		var err error
		if to == toServer {
			_, err = r.client.Write([]byte(text))
		} else {
			_, err = r.server.WriteTo([]byte(text), r.back)
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// want wants datagrams to come out at one end.
func (r *relayed) want(at direction, texts ...string) {
	r.t.Helper()
	b := make([]byte, 1<<16)
	for _, text := range texts {
		var n int
		var err error
		if at == toServer {
			n, r.back, err = r.server.ReadFrom(b)
		} else {
			n, err = r.client.Read(b)
		}
		if got := string(b[:n]); err != nil || got != text {
			r.t.Fatalf("%v: %q, %v, want %q", at, got, err, text)
		}
	}
}

// TestRelayDecides: the relay numbers datagrams by flow and direction, and
// drops, holds and passes them as it is told.
func TestRelayDecides(t *testing.T) {
	t.Parallel()
	var numbers []string
	r := newRelayed(t, func(d datagram) verdict {
		numbers = append(numbers, fmt.Sprint(d.flow, int(d.to), d.n))
		switch {
		case strings.HasPrefix(string(d.data), "drop"):
			return drop
		case strings.HasPrefix(string(d.data), "hold"):
			return hold
		}
		return pass
	})
	r.send(toServer, "one", "drop two", "three", "hold four", "hold five", "six", "seven")
	r.want(toServer, "one", "three", "six", "hold four", "hold five", "seven")
	r.send(toClient, "hold a", "drop b", "c", "", "e")
	r.want(toClient, "c", "hold a", "", "e")
	first := r.back.String()
	r.client = dialUDP(t, r.relay.addr())
	r.client.SetDeadline(time.Now().Add(patience))
	r.send(toServer, "hello")
	r.want(toServer, "hello")
	if r.back.String() == first {
		t.Error("two clients share a flow")
	}
	r.send(toClient, "welcome")
	r.want(toClient, "welcome")

	r.relay.close()
	want := []string{
		"1 0 1", "1 0 2", "1 0 3", "1 0 4", "1 0 5", "1 0 6", "1 0 7",
		"1 1 1", "1 1 2", "1 1 3", "1 1 4", "1 1 5", "2 0 1", "2 1 1",
	}
	if !slices.Equal(numbers, want) {
		t.Errorf("numbers %q\nwant %q", numbers, want)
	}
	for i, d := range r.relay.datagrams() {
		if got := fmt.Sprint(d.flow, int(d.to), d.n); got != want[i] {
			t.Errorf("datagram %d is %s, want %s", i, got, want[i])
		}
	}
}

// TestRelayReadsRecords: the relay tells what is in a datagram, also of junk.
func TestRelayReadsRecords(t *testing.T) {
	t.Parallel()
	record := func(contentType, epoch byte, payload ...byte) string {
		return string(append([]byte{contentType, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 0, 0, byte(len(payload))}, payload...))
	}
	hello := []byte{1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 'h', 'i'}
	part := []byte{1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 'h', 'i'}
	flight := record(22, 0, hello...) + record(20, 0, 1) + record(22, 1, make([]byte, 40)...)
	tests := []struct{ data, want string }{
		{"", ""},
		{"junk", ""},
		{flight, "ClientHello + ChangeCipherSpec + Finished"},
		{flight[:len(flight)-1], "ClientHello + ChangeCipherSpec"},
		{record(22, 0, part...), "part of ClientHello"},
		{record(22, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), "message 99"},
		{record(22, 0, 1), "content type 22 of epoch 0"},
		{record(21, 0, 2, 40), "alert 40"},
		{record(21, 1, make([]byte, 26)...), "alert"},
		{record(23, 1, make([]byte, 26)...), "data"},
		{record(99, 7), "content type 99 of epoch 7"},
	}
	for _, tt := range tests {
		d := datagram{flow: 3, to: toClient, n: 2, data: []byte(tt.data)}
		if got, want := d.String(), fmt.Sprintf("3 to the client #2, %d bytes: %s", len(tt.data), tt.want); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got, want := d.hasFinished(), strings.Contains(tt.want, "Finished"); got != want {
			t.Errorf("%s: hasFinished is %v", tt.want, got)
		}
		if got, want := d.hasMessage(clientHello), strings.Contains(tt.want, "ClientHello"); got != want {
			t.Errorf("%s: hasMessage is %v", tt.want, got)
		}
	}
}
