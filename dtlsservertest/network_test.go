package dtlsservertest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// arrivals sends n numbered datagrams over a link, one a millisecond, and returns
// when and in which order they arrive.
func arrivals(t *testing.T, link Link, n int) (log []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := NewNetwork(t, link)
		receiver, err := network.ListenPacket("udp", ":4433")
		if err != nil {
			t.Fatal(err)
		}
		sender, err := network.Dial("udp", receiver.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer sender.Close()
		done := make(chan struct{})
		start := time.Now()
		go func() {
			defer close(done)
			b := make([]byte, 100)
			for {
				n, from, err := receiver.ReadFrom(b)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil || from.String() != sender.LocalAddr().String() {
					t.Errorf("ReadFrom: %v, from %v", err, from)
				}
				log = append(log, fmt.Sprintf("%s after %v", b[:n], time.Since(start)))
			}
		}()
		for i := range n {
			sender.Write([]byte(strconv.Itoa(i)))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		receiver.Close()
		<-done
	})
	return log
}

// TestSeed: what a link does depends on its seed, and on nothing else.
func TestSeed(t *testing.T) {
	t.Parallel()
	link := Link{Loss: 0.2, Duplicate: 0.2, Reorder: 0.2, Delay: 5 * time.Millisecond, Seed: 7}
	first := arrivals(t, link, 500)
	if again := arrivals(t, link, 500); !slices.Equal(first, again) {
		t.Errorf("the same seed:\n%q\n%q", first, again)
	}
	link.Seed++
	if other := arrivals(t, link, 500); slices.Equal(first, other) {
		t.Error("another seed does the same")
	}
}

// TestSeedOfHandshake: a handshake over a bad network takes the same way each time.
func TestSeedOfHandshake(t *testing.T) {
	t.Parallel()
	type way struct {
		took  time.Duration
		stats NetworkStats
	}
	handshake := func(seed uint64) (w way) {
		synctest.Test(t, func(t *testing.T) {
			server := NewUnstartedServer(t, &dtlsserver.Server{})
			server.Network = NewNetwork(t, Link{Loss: 0.4, Duplicate: 0.1, Reorder: 0.1, Delay: 20 * time.Millisecond, Seed: seed})
			server.Start()
			start := time.Now()
			server.Dial()
			w = way{time.Since(start), server.Network.Stats()}
		})
		return w
	}
	seen := make(map[way]bool)
	for seed := range uint64(10) {
		first := handshake(seed)
		want(t, handshake(seed), first)
		seen[first] = true
	}
	if len(seen) < 5 {
		t.Errorf("ten seeds lead to %d ways only", len(seen))
	}
}

// TestProbabilities: what a link does, it does as often as it is told.
func TestProbabilities(t *testing.T) {
	t.Parallel()
	const n = 2000
	tests := []struct {
		name     string
		link     Link
		min, max int
		count    func([]string) int
	}{
		{"nothing", Link{}, n, n, inOrder},
		{"delay", Link{Delay: 30 * time.Millisecond}, n, n, inOrder},
		{"loss", Link{Loss: 0.3}, 1300, 1500, func(log []string) int { return len(log) }},
		{"all lost", Link{Loss: 1}, 0, 0, func(log []string) int { return len(log) }},
		{"duplicates", Link{Duplicate: 0.3}, 2500, 2700, func(log []string) int { return len(log) }},
		{"reordering", Link{Reorder: 0.1, Delay: 10 * time.Millisecond}, n - 350, n - 50, inOrder},
		{"too long", Link{MTU: 3}, 1000, 1000, func(log []string) int { return len(log) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log := arrivals(t, tt.link, n)
			if got := tt.count(log); got < tt.min || got > tt.max {
				t.Errorf("%d, want %d to %d", got, tt.min, tt.max)
			}
			if tt.link.Delay > 0 && log[0] != fmt.Sprintf("0 after %v", tt.link.Delay) {
				t.Errorf("the first arrives with %s", log[0])
			}
		})
	}
}

// inOrder counts those that come after no later one.
func inOrder(log []string) (n int) {
	last := -1
	for _, line := range log {
		var i int
		fmt.Sscan(line, &i)
		if i > last {
			n, last = n+1, i
		}
	}
	return n
}

func TestSockets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := NewNetwork(t, Link{})
		for _, address := range []string{"127.0.0.1:1", "[::1]:1", "192.0.2.1:port", "192.0.2.1"} {
			if _, err := network.ListenPacket("udp", address); err == nil {
				t.Errorf("listens on %s", address)
			}
		}
		if _, err := network.Dial("tcp", "192.0.2.1:1"); err == nil {
			t.Error("dials by TCP")
		}
		a, err := network.ListenPacket("udp4", "198.51.100.1:1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := network.ListenPacket("udp4", "198.51.100.1:1"); err == nil {
			t.Error("an address is taken twice")
		}
		b, err := network.ListenPacket("udp4", "198.51.100.1:2") // of the same host
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		a.SetReadDeadline(time.Now().Add(time.Second))
		if _, _, err := a.ReadFrom(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("after the deadline: %v", err)
			}
		}
		a.SetReadDeadline(time.Time{})
		b.WriteTo([]byte("x"), a.LocalAddr())
		n, from, err := a.ReadFrom(buf)
		if err != nil || n != 1 || from.String() != b.LocalAddr().String() {
			t.Errorf("%d bytes from %v, %v", n, from, err)
		}
		if _, err := b.WriteTo(nil, &net.TCPAddr{}); err == nil {
			t.Error("writes to an address of TCP")
		}

		// A connected socket hears its peer only.
		c, err := network.Dial("udp4", a.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		b.WriteTo([]byte("stranger"), c.LocalAddr())
		a.WriteTo([]byte("peer"), c.LocalAddr())
		n, err = c.Read(buf)
		if err != nil || string(buf[:n]) != "peer" {
			t.Errorf("Read: %q, %v", buf[:n], err)
		}
		want(t, c.RemoteAddr().String(), a.LocalAddr().String())

		for _, s := range []net.PacketConn{a, b} {
			s.Close()
			if _, err := s.WriteTo(nil, c.LocalAddr()); !errors.Is(err, net.ErrClosed) {
				t.Errorf("WriteTo after Close: %v", err)
			}
			if _, _, err := s.ReadFrom(buf); !errors.Is(err, net.ErrClosed) {
				t.Errorf("ReadFrom after Close: %v", err)
			}
		}
		c.Close()
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close again: %v", err)
		}
	})
}

// TestTwoServers: servers share a network.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := NewNetwork(t, Link{Delay: time.Millisecond})
		one, two := startOn(t, network, echo), startOn(t, network, echo)
		if one.Addr() == two.Addr() {
			t.Errorf("both are at %v", one.Addr())
		}
		want(t, one.Dial().Ask("one"), "one")
		want(t, two.Dial().Ask("two"), "two")
		want(t, string(two.Events.Messages()[0].PlainText), "two")
		want(t, one.Stats().Sessions, 1)
	})
}

// TestRealClock: a network works outside of bubbles too.
func TestRealClock(t *testing.T) {
	t.Parallel()
	server := startOn(t, NewNetwork(t, Link{Delay: time.Millisecond}), echo)
	want(t, server.Dial().Ask("hello"), "hello")
}
