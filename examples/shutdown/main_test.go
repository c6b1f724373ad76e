package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

// TestSignal: this process gets the signal, as the program would, and the client
// is told.
func TestSignal(t *testing.T) {
	key := []byte("secret")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		server := &dtlsserver.Server{PSK: dtlsserver.StaticPSK(map[string][]byte{"sensor-1": key})}
		reader, writer := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			ended <- run(t.Context(), server, "127.0.0.1:0", writer)
			writer.Close()
		}()
		lines := bufio.NewScanner(reader)
		await := func(line string) {
			t.Helper()
			for lines.Scan() {
				if strings.Contains(lines.Text(), line) {
					return
				}
			}
			t.Fatalf("%v: no line with %q", sig, line)
		}
		await("listening on 127.0.0.1:")

		connected := make(chan net.Conn, 1)
		go func() {
			defer close(connected)
			socket, err := net.Dial("udp", server.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			client, err := dtlsservertest.Connect(t.Context(), socket, &dtlsservertest.ClientConfig{Identity: "sensor-1", Key: key})
			if err != nil {
				t.Error(err)
				return
			}
			connected <- client
		}()
		await("handshake complete")
		client := <-connected
		if client == nil {
			t.FailNow()
		}
		defer client.Close()
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 100)
		fmt.Fprint(client, "hello")
		if n, err := client.Read(b); err != nil || string(b[:n]) != "hello" {
			t.Errorf("%v: the reply is %q, %v", sig, b[:n], err)
		}

		if self, err := os.FindProcess(os.Getpid()); err != nil || self.Signal(sig) != nil {
			t.Skipf("there is no %v on this system", sig)
		}
		await("session closed")
		await("stopped listening on")
		if _, err := client.Read(b); err != io.EOF {
			t.Errorf("%v: the client was not told: %v", sig, err)
		}
		if err := <-ended; err != nil {
			t.Errorf("%v: %v", sig, err)
		}
	}
}

// TestWrongKey: a handshake that will not end holds the program up for the grace
// only, and is no failure.
func TestWrongKey(t *testing.T) {
	// The first to ask for signals starts a goroutine for good, which must not
	// be one of the bubble.
	_, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	stop()
	synctest.Test(t, func(t *testing.T) {
		key := []byte("secret")
		network := dtlsservertest.NewNetwork(t, dtlsservertest.Link{})
		server := &dtlsserver.Server{
			PSK:          dtlsserver.StaticPSK(map[string][]byte{"sensor-1": key}),
			ListenPacket: network.ListenPacket,
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		reader, stdout := io.Pipe() // which the loop may write to still when run returns
		printed := make(chan string, 1)
		go func() {
			all, _ := io.ReadAll(reader)
			printed <- string(all)
		}()
		ended := make(chan error, 1)
		go func() { ended <- run(ctx, server, "192.0.2.1:4433", stdout) }()
		synctest.Wait()
		dial := func(key []byte) (net.Conn, error) {
			socket, err := network.Dial("udp", "192.0.2.1:4433")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return dtlsservertest.Connect(ctx, socket, &dtlsservertest.ClientConfig{Identity: "sensor-1", Key: key})
		}
		client, err := dial(key)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := dial([]byte("guess")); err == nil {
			t.Error("a wrong key is right")
		}

		start := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != grace {
			t.Errorf("it takes %v", took)
		}
		synctest.Wait() // the loop has told its handler all
		stdout.Close()
		if text := <-printed; !strings.Contains(text, "ended before some handshakes") || !strings.Contains(text, "session closed") {
			t.Errorf("printed %q", text)
		}
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the client was not told: %v", err)
		}
	})
}

// TestAddressInUse: what Listen says is what run returns.
func TestAddressInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	server := &dtlsserver.Server{PSK: dtlsserver.StaticPSK(nil)}
	if err := run(t.Context(), server, taken.LocalAddr().String(), io.Discard); err == nil {
		t.Error("no error")
	}
}
