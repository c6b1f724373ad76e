package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/examples/internal/pskclient"
	"github.com/pion/dtls/v2"
)

// demo is a few clients in this process, with a key of their own.
type demo struct {
	server *dtlsserver.Server
	key    []byte
	pace   time.Duration // a second; shorter in tests
}

// newDemo teaches a server that does not listen yet the key of the clients.
func newDemo(server *dtlsserver.Server) *demo {
	d := &demo{server, []byte(rand.Text()), time.Second}
	// Now and then pion's client closes its socket before it has said so.
	server.IdleTimeout = time.Minute
	others := server.PSK
	server.PSK = func(ctx context.Context, req dtlsserver.PSKRequest) (dtlsserver.PSK, error) {
		switch {
		case req.Identity == "demo-broken":
			return dtlsserver.PSK{}, errors.New("the database does not answer")
		case strings.HasPrefix(req.Identity, "demo-sensor-"):
			return dtlsserver.PSK{Key: d.key}, nil
		}
		return others(ctx, req)
	}
	return d
}

// run runs the clients until ctx is done.
func (d *demo) run(ctx context.Context) {
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() {
			identity := fmt.Sprintf("demo-sensor-%d", i+1)
			every(ctx, time.Duration(i)*d.pace, d.pace, func() { d.sense(ctx, identity, i) })
		})
	}
	// Each fails in another way.
	for i, identity := range []string{"demo-sensor-4", "demo-nobody", "demo-broken"} {
		group.Go(func() {
			every(ctx, time.Duration(3+4*i)*d.pace, 20*d.pace, func() {
				ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
				defer cancel()
				if client, err := dial(ctx, d.server.Addr(), identity, []byte("a wrong key")); err == nil {
					_ = client.Close()
				}
			})
		})
	}
	group.Go(func() { every(ctx, 5*d.pace, 7*d.pace, func() { junk(d.server.Addr()) }) })
	group.Wait()
}

// every calls f after a while, then each time that a period has gone since it
// returned.
func every(ctx context.Context, first, period time.Duration, f func()) {
	for wait := first; ; wait = period {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			f()
		}
	}
}

// sense sends some readings, and goes.
func (d *demo) sense(ctx context.Context, identity string, i int) {
	dialCtx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	client, err := dial(dialCtx, d.server.Addr(), identity, d.key)
	if err != nil {
		return // the server may not be listening
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, client) // acknowledgements, until either end closes
	}()
	defer func() {
		_ = client.Close()
		<-gone
	}()
	for n := range 25 * (i + 1) {
		reading := fmt.Sprintf("reading %d: %.2f °C", n+1, 21+3*math.Sin(float64(n)/5+float64(i)))
		if _, err := client.Write([]byte(reading)); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-gone:
			return
		case <-time.After(time.Duration(3+2*i) * d.pace / 5):
		}
	}
}

// junk sends what is no DTLS.
func junk(server netip.AddrPort) {
	conn, err := net.Dial("udp", server.String())
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("is anybody there?"))
}

// dial connects a client.
func dial(ctx context.Context, server netip.AddrPort, identity string, key []byte) (*dtls.Conn, error) {
	if !server.IsValid() {
		return nil, net.ErrClosed
	}
	return dtls.DialWithContext(ctx, "udp", net.UDPAddrFromAddrPort(server), pskclient.Config(identity, key))
}
