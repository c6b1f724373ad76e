package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
)

const (
	identity = "sensor-1"
	key      = "\x1a\x2b\x3c\x4d\x5e\x6f"
	patience = 10 * time.Second
)

// start starts two servers with secrets.
func start(t *testing.T, cookieSecrets, ticketKeys [2]byte) (servers [2]*dtlsservertest.Server) {
	t.Helper()
	for i, name := range []string{"one", "two"} {
		secret := make([]byte, dtlsserver.MinVerifierSecretLen)
		secret[0] = cookieSecrets[i]
		server, err := newServer(name, secret, [32]byte{ticketKeys[i]})
		if err != nil {
			t.Fatal(err)
		}
		servers[i] = dtlsservertest.StartServer(t, server)
	}
	return servers
}

// TestCookies: only servers that share their secret take each other's cookies.
func TestCookies(t *testing.T) {
	t.Parallel()
	for name, secrets := range map[string][2]byte{"shared": {1, 1}, "not shared": {1, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := start(t, secrets, [2]byte{1, 2})
			one, two := servers[0], servers[1]
			front, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var group sync.WaitGroup
			group.Go(func() {
				err := forward(front, net.UDPAddrFromAddrPort(one.Addr()), net.UDPAddrFromAddrPort(two.Addr()))
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("forward: %v", err)
				}
			})
			defer group.Wait()
			defer front.Close()

			socket, err := net.Dial("udp", front.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			client, err := dtlsservertest.Connect(ctx, socket, &dtlsservertest.ClientConfig{
				Identity:          identity,
				Key:               []byte(key),
				RetransmitTimeout: patience, // a hello that is repeated goes to the second server
			})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			client.SetReadDeadline(time.Now().Add(patience))
			client.Write([]byte("hello"))
			reply := make([]byte, 100)
			n, err := client.Read(reply)
			if want := "two has received \"hello\", resumed: false\n"; err != nil || string(reply[:n]) != want {
				t.Errorf("the reply is %q, %v", reply[:n], err)
			}
			one.Events.Want(dtlsserver.KindHelloVerifyRequestSent, "for the first hello")
			one.Events.WantNone(dtlsserver.KindHelloVerified, "at the server that saw no cookie")
			two.Events.Want(dtlsserver.KindHandshakeComplete, "after Dial")
			if asked := two.Stats().HelloVerifyRequests > 0; asked == (name == "shared") {
				t.Errorf("the second server has asked for a cookie: %t", asked)
			}
		})
	}
}

// TestTickets: only servers that share their key resume each other's sessions.
func TestTickets(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][2]byte{"shared": {1, 1}, "not shared": {1, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := start(t, [2]byte{1, 2}, keys)
			first := testpeer.New(identity, []byte(key), 1)
			first.Suites, first.AskTicket = []uint16{0xd001}, true // TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256
			handshake(t, servers[0], first)

			again := testpeer.New(identity, []byte(key), 2)
			again.Suites, again.Ticket, again.Master, again.SessionID = first.Suites, first.NewTicket, first.Master, []byte{1}
			handshake(t, servers[1], again)
			state := servers[1].Events.Want(dtlsserver.KindHandshakeComplete, "after the handshake").Session.ConnectionState()
			if state.DidResume != (name == "shared") {
				t.Errorf("resumed: %t", state.DidResume)
			}
		})
	}
}

// handshake connects a client that is driven by hand: that of dtlsservertest has no
// tickets.
func handshake(t *testing.T, server *dtlsservertest.Server, c *testpeer.Client) {
	t.Helper()
	conn, err := server.DialUDP()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<16)
	exchange := func(flight []byte, done func() bool) {
		t.Helper()
		_, err := conn.Write(flight)
		for err == nil && !done() {
			var n int
			if n, err = conn.Read(b); err == nil {
				err = c.Receive(append([]byte(nil), b[:n]...))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	exchange(c.Hello(), func() bool { return c.Cookie != nil })
	exchange(c.Hello(), func() bool { return c.HelloDone || c.Complete })
	if c.Resuming {
		exchange(c.Resume(), func() bool { return true })
	} else {
		exchange(c.Flight(), func() bool { return c.Complete })
	}
}
