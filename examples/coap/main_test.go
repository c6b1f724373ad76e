package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	piondtls "github.com/pion/dtls/v3"
	pionnet "github.com/pion/dtls/v3/pkg/net"
	coapdtls "github.com/plgd-dev/go-coap/v3/dtls"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsnet"
)

// start serves on a free port, and ends the service with the test.
func start(t *testing.T) string {
	t.Helper()
	server := &dtlsserver.Server{PSK: dtlsserver.StaticPSK(map[string][]byte{
		"sensor-1": []byte("a key of sensor 1"),
		"sensor-2": []byte("a key of sensor 2"),
	})}
	listener, err := dtlsnet.Listen("udp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("serve does not return")
		}
		if server.IsListening() {
			t.Error("the socket is still open")
		}
	})
	return listener.Addr().String()
}

// request makes a request of the sensor with the number and returns what the
// answer holds.
type request func(ctx context.Context, sensor int, method, body string) (string, error)

func TestNotes(t *testing.T) {
	t.Parallel()
	clients := map[string]func(t *testing.T, addr string) request{
		"go-coap":             goCoAP,
		"coap-client-gnutls":  libcoap("coap-client-gnutls"),
		"coap-client-openssl": libcoap("coap-client-openssl"),
	}
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := start(t)
			request := client(t, addr)
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			want := func(sensor int, method, body, want string) {
				t.Helper()
				if got, err := request(ctx, sensor, method, body); got != want || err != nil {
					t.Errorf("sensor %d: %s %.20q: %.80q, %v, want %.80q", sensor, method, body, got, err, want)
				}
			}
			long := strings.Repeat("a note that fits ", 60)
			want(1, "get", "", "")
			want(1, "put", "21.5 degrees", "")
			want(2, "put", long, "")
			want(1, "get", "", "21.5 degrees")
			want(2, "get", "", long)
			want(1, "put", strings.Repeat("a note that does not fit ", 60), "4.13")
			want(1, "delete", "", "4.05")
			want(1, "get", "", "21.5 degrees")
		})
	}
}

// libcoap returns a request by libcoap's client, one process for each.
func libcoap(program string) func(t *testing.T, addr string) request {
	return func(t *testing.T, addr string) request {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
		return func(ctx context.Context, sensor int, method, body string) (string, error) {
			file := filepath.Join(t.TempDir(), "body")
			if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
				return "", err
			}
			args := []string{"-B", "20", "-m", method,
				"-u", fmt.Sprintf("sensor-%d", sensor), "-k", fmt.Sprintf("a key of sensor %d", sensor)}
			if body != "" {
				args = append(args, "-f", file)
			}
			var stdout, stderr bytes.Buffer
			cmd := exec.CommandContext(ctx, program, append(args, "coaps://"+addr+"/note")...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			t.Logf("%s %s\n%s%s", program, strings.Join(cmd.Args[1:], " "), stdout.Bytes(), stderr.Bytes())
			// Codes of failure come on stderr.
			return strings.TrimRight(cmp.Or(stdout.String(), stderr.String()), "\n"), err
		}
	}
}

func clientOptions(sensor int) []piondtls.ClientOption {
	return []piondtls.ClientOption{
		piondtls.WithPSK(func([]byte) ([]byte, error) { return fmt.Appendf(nil, "a key of sensor %d", sensor), nil }),
		piondtls.WithPSKIdentityHint(fmt.Appendf(nil, "sensor-%d", sensor)),
		piondtls.WithCipherSuites(piondtls.TLS_PSK_WITH_AES_128_CCM_8),
	}
}

// goCoAP returns a request by go-coap's own client, on pion/dtls.
func goCoAP(t *testing.T, addr string) request {
	return func(ctx context.Context, sensor int, method, body string) (string, error) {
		client, err := coapdtls.Dial(addr, coapdtls.NewDTLSClientOptions(clientOptions(sensor)...))
		if err != nil {
			return "", err
		}
		defer client.Close()
		r, err := client.NewGetRequest(ctx, "/note")
		if err != nil {
			return "", err
		}
		switch method {
		case "put":
			r.SetCode(codes.PUT)
			r.SetContentFormat(message.TextPlain)
			r.SetBody(strings.NewReader(body))
		case "delete":
			r.SetCode(codes.DELETE)
		}
		answer, err := client.Do(r)
		if err != nil {
			return "", err
		}
		switch code := answer.Code(); code {
		case codes.RequestEntityTooLarge, codes.MethodNotAllowed:
			return fmt.Sprintf("%d.%02d", code>>5, code&31), nil
		}
		content, err := answer.ReadBody()
		return string(content), err
	}
}

// TestStop: the service ends also while a client is connected, and when there
// was none. See the end of start.
func TestStop(t *testing.T) {
	t.Parallel()
	start(t)
	conn, err := net.Dial("udp", start(t))
	if err != nil {
		t.Fatal(err)
	}
	client, err := piondtls.ClientWithOptions(pionnet.PacketConnFromConn(conn), conn.RemoteAddr(), clientOptions(1)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
}
