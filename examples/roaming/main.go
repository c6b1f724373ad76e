// Roaming shows a session that survives changes of its client's address, with a
// server and a client in one process and on this machine only. The client has a
// connection ID (RFC 9146), and before each message it takes another port, as a
// device behind NAT does that has slept. The server finds the session by its
// connection ID, and moves it when the client has proven its new address by the return
// routability check (RFC 9853).
//
//	cd examples/roaming && go run .
//
// It prints the server's events, and exits with status 1 if they are not the expected
// ones. It is a module of its own, since its client is that of pion/dtls v4: that of
// v2, which the other examples have, has no connection IDs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/pion/dtls/v4"
	"github.com/pion/dtls/v4/pkg/crypto/ciphersuite"
	"github.com/pion/dtls/v4/pkg/protocol"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/console"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	if len(args) > 0 {
		fmt.Fprintln(stderr, "usage: roaming (it takes no arguments)")
		return 2
	}
	if err := roam(ctx, console.New(stdout)); err != nil {
		fmt.Fprintln(stderr, "roaming:", err)
		return 1
	}
	return 0
}

const (
	identity = "sensor-1"
	key      = "a key of sensor 1" // a service has random keys in a database

	// moves is how often the client changes its address.
	moves = 4
	// patience is how long each step may take.
	patience = 10 * time.Second
)

// roam runs the server and its client. It prints to out and returns what did not
// happen as it should.
func roam(ctx context.Context, out *console.Handler) error {
	moved := make(chan netip.AddrPort, moves) // where to
	server := &dtlsserver.Server{
		PSK: dtlsserver.StaticPSK(map[string][]byte{identity: []byte(key)}),
		Handler: dtlsserver.MultiHandler(out, dtlsserver.HandlerFuncs{
			OnInfo: func(e dtlsserver.Event) {
				if e.Kind == dtlsserver.KindPeerMoved {
					moved <- e.Remote
				}
			},
			OnDatagramReceived: func(s *dtlsserver.Session, _, _ []byte) {
				fmt.Fprintf(s, "message %d of this session", s.Stats().MessagesReceived)
			},
		}),
	}
	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		return err
	}
	defer func() { // after it nothing more is printed
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_ = server.Shutdown(ctx)
	}()

	socket := new(socket)
	if err := socket.move(); err != nil {
		return err
	}
	client, err := connect(ctx, socket, server.Addr())
	if err != nil {
		return fmt.Errorf("the client does not connect: %w", err)
	}
	defer client.Close()

	for i := range 1 + moves { // the first message is from where the handshake was
		if i > 0 {
			if err := socket.move(); err != nil {
				return err
			}
			out.Printf("\nthe client is at %v now", socket.LocalAddr())
		}
		reply, err := ask(client, "21.5 degrees")
		if err != nil {
			return fmt.Errorf("there is no reply: %w", err)
		}
		out.Printf("the client has received %q", reply)
		if want := fmt.Sprintf("message %d of this session", i+1); reply != want {
			return fmt.Errorf("the reply is %q, not %q", reply, want)
		}
		if i == 0 {
			continue
		}
		if err := await(ctx, moved, socket.LocalAddr().String()); err != nil {
			return err
		}
	}

	stats := server.Stats()
	if stats.HandshakesStarted != 1 || stats.PeersMoved != moves {
		return fmt.Errorf("%d handshakes and %d moves, not 1 and %d", stats.HandshakesStarted, stats.PeersMoved, moves)
	}
	out.Printf("\nAll as it should be: %d messages from %d addresses, with one handshake.", stats.MessagesReceived, 1+moves)
	return nil
}

// connect connects a client that offers a connection ID, wants none itself, and
// supports the return routability check.
func connect(ctx context.Context, socket net.PacketConn, server netip.AddrPort) (*dtls.Conn, error) {
	client, err := dtls.Client(socket, net.UDPAddrFromAddrPort(server),
		dtls.WithPSK(func() ([]dtls.PSK, error) {
			return []dtls.PSK{{Identity: []byte(identity), Key: []byte(key)}}, nil
		}, nil),
		dtls.WithCipherSuites(ciphersuite.TLS_PSK_WITH_AES_128_GCM_SHA256),
		dtls.WithMaxVersion(protocol.Version1_2),
		dtls.WithConnectionID(dtls.OnlySendCIDGenerator(), dtls.CIDPathMigrationRRC))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := client.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

// ask sends a message and returns the reply.
func ask(client *dtls.Conn, message string) (string, error) {
	if _, err := io.WriteString(client, message); err != nil {
		return "", err
	}
	if err := client.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	buf := make([]byte, 2048)
	n, err := client.Read(buf)
	return string(buf[:n]), err
}

// await waits for the session to move to an address.
func await(ctx context.Context, moved <-chan netip.AddrPort, to string) error {
	select {
	case addr := <-moved:
		if addr.String() != to {
			return fmt.Errorf("the session has moved to %v, not to %v", addr, to)
		}
		return nil
	case <-time.After(patience):
		return fmt.Errorf("the session does not move to %v", to)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// socket is a client's socket that can take another port. It stays open meanwhile,
// for the client, which is not told.
type socket struct {
	mu     sync.Mutex // guards all following
	conn   *net.UDPConn
	closed bool
	until  time.Time // the deadline for reading
}

// move takes a new port of the system's choice, and gives up the old one: what is
// sent there is lost.
func (s *socket) move() error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.Join(net.ErrClosed, conn.Close())
	}
	old := s.conn
	s.conn = conn
	if old == nil {
		return nil
	}
	return errors.Join(conn.SetReadDeadline(s.until), old.Close())
}

// current returns the socket of the system that there is now.
func (s *socket) current() *net.UDPConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// ReadFrom goes on with the new socket when the old one is closed under it.
func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	for conn := s.current(); ; {
		n, from, err := conn.ReadFrom(b)
		next := s.current()
		if !errors.Is(err, net.ErrClosed) || next == conn {
			return n, from, err
		}
		conn = next
	}
}

func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) { return s.current().WriteTo(b, to) }
func (s *socket) LocalAddr() net.Addr                        { return s.current().LocalAddr() }
func (s *socket) SetWriteDeadline(t time.Time) error         { return s.current().SetWriteDeadline(t) }

func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = t
	return s.conn.SetReadDeadline(t)
}

func (s *socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.conn.Close()
}
