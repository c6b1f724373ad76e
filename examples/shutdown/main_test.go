package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pion/dtls/v2"

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

		connected := make(chan *dtls.Conn, 1)
		go func() {
			client, err := dtls.Dial("udp", net.UDPAddrFromAddrPort(server.Addr()), dtlsservertest.PSKConfig("sensor-1", key))
			if err != nil {
				t.Error(err)
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
