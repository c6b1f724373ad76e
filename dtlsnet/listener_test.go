package dtlsnet

// A Listener on the loopback interface, with clients that others wrote.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// TestMain: nothing runs on when all is closed.
func TestMain(m *testing.M) {
	code := m.Run()
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(5 * time.Second); code == 0; runtime.Gosched() {
		all := string(stacks[:runtime.Stack(stacks, true)])
		if strings.Count(all, "\n\ngoroutine ") == 0 {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", all)
			code = 1
		}
	}
	os.Exit(code)
}

func newServer() *dtlsserver.Server {
	return &dtlsserver.Server{PSK: dtlsserver.StaticPSK(map[string][]byte{
		"sensor-1": []byte("sixteen byte key"),
	})}
}

// fixture is a Listener with what its server tells, before the Listener is told.
type fixture struct {
	*Listener
	t     *testing.T
	infos chan dtlsserver.Event
	data  chan string
}

// listen starts a server. What a test waits for must come within the time of
// its clients' deadlines.
func listen(t *testing.T, config ListenConfig, server *dtlsserver.Server) *fixture {
	t.Helper()
	l := &fixture{t: t, infos: make(chan dtlsserver.Event, 1000), data: make(chan string, 1000)}
	server.Handler = dtlsserver.HandlerFuncs{
		OnInfo:             func(e dtlsserver.Event) { l.infos <- e },
		OnDatagramReceived: func(_ *dtlsserver.Session, _, plainText []byte) { l.data <- string(plainText) },
	}
	var err error
	if l.Listener, err = config.Listen("udp", "127.0.0.1:0", server); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		server.Close()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return l
}

// dial connects a client, from the local address if it is not nil.
func (l *fixture) dial(from *net.UDPAddr) (net.Conn, *net.UDPConn) {
	l.t.Helper()
	client, socket, err := l.tryDial(from)
	if err != nil {
		l.t.Fatal(err)
	}
	return client, socket
}

func (l *fixture) tryDial(from *net.UDPAddr) (net.Conn, *net.UDPConn, error) {
	l.t.Helper()
	socket, err := net.DialUDP("udp", from, l.Addr().(*net.UDPAddr))
	if err != nil {
		l.t.Fatal(err)
	}
	client, err := handshake(socket)
	if err != nil {
		return nil, nil, err
	}
	client.SetDeadline(time.Now().Add(20 * time.Second))
	l.t.Cleanup(func() { client.Close() })
	return client, socket, nil
}

// wantRefused: a new session is closed. The client may see that before it has
// noticed that its handshake is complete.
func (l *fixture) wantRefused() {
	l.t.Helper()
	client, _, err := l.tryDial(nil)
	if err == nil {
		wantEOF(l.t, client)
	} else if alert := new(dtlsserver.AlertError); !errors.As(err, &alert) || alert.Name() != "close_notify" {
		l.t.Error(err)
	}
}

// accept returns the next connection, whose deadline bounds what the test waits
// for.
func (l *fixture) accept() *Conn {
	l.t.Helper()
	conn, err := l.Accept()
	if err != nil {
		l.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	l.t.Cleanup(func() { conn.Close() })
	return conn.(*Conn)
}

// wait waits until the user's handler is told of the kind. The Listener has been
// told all that was before it.
func (l *fixture) wait(kind dtlsserver.EventKind) dtlsserver.Event {
	l.t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case e := <-l.infos:
			if e.Kind == kind {
				return e
			}
		case <-late:
			l.t.Fatalf("no %v", kind)
		}
	}
}

// wantAcceptError: no more is accepted.
func (l *fixture) wantAcceptError(want error) {
	l.t.Helper()
	conn, err := l.Accept()
	if conn != nil {
		l.t.Errorf("Accept returned a connection of %v", conn.RemoteAddr())
	}
	wantError(l.t, err, "accept", want)
}

// wantEcho: conn and client can talk.
func wantEcho(t *testing.T, conn, client net.Conn) {
	t.Helper()
	write(t, client, "ping")
	wantRead(t, conn, "ping")
	write(t, conn, "pong")
	wantRead(t, client, "pong")
}

// wantEOF: the client has been told that the server's end is closed.
func wantEOF(t *testing.T, client net.Conn) {
	t.Helper()
	if n, err := client.Read(make([]byte, 100)); n != 0 || err != io.EOF {
		t.Errorf("the client reads %d bytes, %v", n, err)
	}
}

func TestAccept(t *testing.T) {
	t.Parallel()
	l := listen(t, ListenConfig{}, newServer())
	if l.Addr().(*net.UDPAddr).Port == 0 {
		t.Errorf("Addr: %v", l.Addr())
	}
	for range 3 {
		client, _ := l.dial(nil)
		conn := l.accept()
		if got, want := conn.RemoteAddr().String(), client.LocalAddr().String(); got != want {
			t.Errorf("RemoteAddr: %v, want %v", got, want)
		}
		if got, want := conn.LocalAddr().String(), l.Addr().String(); got != want {
			t.Errorf("LocalAddr: %v, want %v", got, want)
		}
		if id := conn.Session().ConnectionState().PSKIdentity; id != "sensor-1" {
			t.Errorf("identity %q", id)
		}
		wantEcho(t, conn, client)
		write(t, client, "one", "", "three")
		wantRead(t, conn, "one")
		wantRead(t, conn, "")
		wantRead(t, conn, "three")
		_, err := conn.Write(make([]byte, 1<<14+1))
		wantError(t, err, "write", dtlsserver.ErrMessageTooLong)
		wantEcho(t, conn, client)
	}
	if stats := l.Stats(); stats != (Stats{Conns: 3}) {
		t.Errorf("%+v", stats)
	}
	if got := <-l.data; got != "ping" {
		t.Errorf("the user's handler is given %q", got)
	}
}

// TestClosing: whatever is closed first, reads, writes, Accept and Close say so, and
// all ends.
func TestClosing(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		f    func(t *testing.T, l *fixture)
	}{
		{"client first", testClientFirst},
		{"connection first", testConnFirst},
		{"session first", testSessionFirst},
		{"before Accept", testClientBeforeAccept},
		{"listener first", testListenerFirst},
		{"listener first, client ends the last", testListenerFirstClientLast},
		{"listener while Accept waits", testListenerWhileAcceptWaits},
		{"server first", testServerFirst},
		{"server while connections wait", testServerWhileConnsWait},
		{"server that is given to Listen again", testServerListensAgain},
		{"idle", testSessionIsIdle},
		{"reconnect", testClientReconnects},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := newServer()
			if tt.name == "idle" {
				server.IdleTimeout = 50 * time.Millisecond
			}
			tt.f(t, listen(t, ListenConfig{}, server))
		})
	}
}

// testClientFirst: what a client has said before it goes can be read, and then io.EOF.
func testClientFirst(t *testing.T, l *fixture) {
	client, _ := l.dial(nil)
	conn := l.accept()
	write(t, client, "last words")
	client.Close()
	wantRead(t, conn, "last words")
	wantReadError(t, conn, io.EOF)
	wantReadError(t, conn, io.EOF)
	wantWriteError(t, conn, dtlsserver.ErrPeerClosed)
	if err := conn.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wantReadError(t, conn, net.ErrClosed)
	wantWriteError(t, conn, net.ErrClosed)
	wantError(t, conn.Close(), "close", net.ErrClosed)
}

// testConnFirst: Conn.Close ends the session, and the listener takes others.
func testConnFirst(t *testing.T, l *fixture) {
	client, _ := l.dial(nil)
	conn := l.accept()
	wantEcho(t, conn, client)
	write(t, client, "not read")
	if err := conn.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wantReadError(t, conn, net.ErrClosed)
	wantWriteError(t, conn, net.ErrClosed)
	wantError(t, conn.Close(), "close", net.ErrClosed)
	wantEOF(t, client)
	if n := l.Stats().Conns; n != 0 {
		t.Errorf("%d connections are open", n)
	}
	other, _ := l.dial(nil)
	wantEcho(t, l.accept(), other)
}

// testSessionFirst: Session.Close ends the connection that stands on it.
func testSessionFirst(t *testing.T, l *fixture) {
	client, _ := l.dial(nil)
	conn := l.accept()
	conn.Session().Close()
	wantReadError(t, conn, net.ErrClosed)
	wantWriteError(t, conn, dtlsserver.ErrSessionClosed)
	wantEOF(t, client)
	if err := conn.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// testClientBeforeAccept: a client that is gone by then is accepted, and what it
// has said can be read.
func testClientBeforeAccept(t *testing.T, l *fixture) {
	client, _ := l.dial(nil)
	write(t, client, "last words")
	client.Close()
	l.wait(dtlsserver.KindSessionClosed)
	conn := l.accept()
	wantRead(t, conn, "last words")
	wantReadError(t, conn, io.EOF)
	if stats := l.Stats(); stats != (Stats{}) {
		t.Errorf("%+v", stats)
	}
}

// testListenerFirst: whoever waits is closed, and whoever comes refused. What was
// accepted lives on, and the server with it.
func testListenerFirst(t *testing.T, l *fixture) {
	client, _ := l.dial(nil)
	conn := l.accept()
	waiting, _ := l.dial(nil)
	l.wait(dtlsserver.KindHandshakeComplete)
	l.wait(dtlsserver.KindHandshakeComplete)
	write(t, waiting, "nobody listens")
	for got := ""; got != "nobody listens"; got = <-l.data {
	}
	accepted := make(chan error, 1)
	if n := l.Stats().Waiting; n != 1 {
		t.Errorf("%d connections wait", n)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	wantError(t, <-accepted, "accept", net.ErrClosed)
	wantError(t, l.Close(), "close", net.ErrClosed)
	wantEOF(t, waiting)
	wantEcho(t, conn, client) // lives on

	l.wantRefused()
	if stats := l.Stats(); stats.Refused != 1 || stats.Waiting != 0 || stats.Conns != 1 {
		t.Errorf("%+v", stats)
	}
	if !l.server.IsListening() {
		t.Fatal("the server is closed")
	}
	_, err := Listen("udp", l.Addr().String(), l.server)
	if !errors.Is(err, dtlsserver.ErrAlreadyServing) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("Listen while a connection is open: %v", err)
	}
	conn.Close()
	if l.server.IsListening() {
		t.Error("the last connection is closed and the server is not")
	}
	wantEOF(t, client)
}

// testListenerFirstClientLast: the server ends with the last connection, also
// when a client ends that.
func testListenerFirstClientLast(t *testing.T, l *fixture) {
	client, _ := l.dial(nil)
	conn := l.accept()
	l.Close()
	wantEcho(t, conn, client)
	client.Close()
	l.wait(dtlsserver.KindStopped)
	wantReadError(t, conn, io.EOF)
	conn.Close()
}

// testListenerWhileAcceptWaits: Accept returns, and the server is closed at once, since
// there is no connection.
func testListenerWhileAcceptWaits(t *testing.T, l *fixture) {
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	l.Close()
	wantError(t, <-accepted, "accept", net.ErrClosed)
	if l.server.IsListening() {
		t.Error("the server is not closed")
	}
}

// testServerFirst: Server.Close ends the connections and the listener.
func testServerFirst(t *testing.T, l *fixture) {
	client, _ := l.dial(nil)
	conn := l.accept()
	l.server.Close()
	wantReadError(t, conn, net.ErrClosed)
	wantReadError(t, conn, dtlsserver.ErrServerClosed)
	wantWriteError(t, conn, dtlsserver.ErrServerClosed)
	wantEOF(t, client)
	l.wantAcceptError(net.ErrClosed)
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// testServerWhileConnsWait: connections that nobody has accepted end with the server.
func testServerWhileConnsWait(t *testing.T, l *fixture) {
	for range 5 {
		l.dial(nil)
	}
	l.server.Close()
	<-l.done
	for range 5 {
		l.wantAcceptError(net.ErrClosed)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if stats := l.Stats(); stats != (Stats{}) {
		t.Errorf("%+v", stats)
	}
}

// testServerListensAgain: a listener and connections that the server has left do
// nothing to it any more.
func testServerListensAgain(t *testing.T, l *fixture) {
	client, _ := l.dial(nil)
	conn := l.accept()
	l.server.Close()
	again, err := Listen("udp", l.Addr().String(), l.server)
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // must not reach the server any more
	conn.Close()
	wantEOF(t, client)
	now := &fixture{Listener: again, t: t, infos: l.infos}
	other, _ := now.dial(nil)
	wantEcho(t, now.accept(), other)
	l.wantAcceptError(net.ErrClosed)
	if got := <-l.data; got != "ping" || len(l.data) > 0 {
		t.Errorf("the user's handler is given %q and %d more", got, len(l.data))
	}
}

// testSessionIsIdle: a read says that the server has given the session up.
func testSessionIsIdle(t *testing.T, l *fixture) {
	l.dial(nil)
	wantReadError(t, l.accept(), dtlsserver.ErrIdleTimeout)
}

// testClientReconnects: the new session is another connection, and ends the old one.
func testClientReconnects(t *testing.T, l *fixture) {
	_, socket := l.dial(nil)
	conn := l.accept()
	socket.Close() // the peer forgets all
	client, _ := l.dial(socket.LocalAddr().(*net.UDPAddr))
	wantReadError(t, conn, dtlsserver.ErrReconnected)
	wantWriteError(t, conn, dtlsserver.ErrReconnected)
	wantEcho(t, l.accept(), client)
}

// TestListenAgain: a Listener has no say in its server once that was given to
// Listen again, even if it has not been told of its end.
func TestListenAgain(t *testing.T) {
	t.Parallel()
	server, release := newServer(), make(chan struct{})
	server.Handler = dtlsserver.HandlerFuncs{OnInfo: func(e dtlsserver.Event) {
		if e.Kind == dtlsserver.KindStopped {
			<-release
		}
	}}
	first, err := Listen("udp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	second, err := Listen("udp", first.Addr().String(), server)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if !server.IsListening() {
		t.Error("the first Listener has closed the server under the second")
	}
	if user := server.Handler.(handler).user; fmt.Sprintf("%T", user) != "dtlsserver.HandlerFuncs" {
		t.Errorf("the user's handler has become a %T", user)
	}
	close(release)
	second.Close()
	if server.IsListening() {
		t.Error("the second Listener has not closed the server")
	}
	if err := server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestQueuesAreBounded: what does not fit is dropped and counted.
func TestQueuesAreBounded(t *testing.T) {
	t.Parallel()
	l := listen(t, ListenConfig{Backlog: 1, ConnBuffer: 100}, newServer())
	client, _ := l.dial(nil)
	message := func(n int) string { return fmt.Sprintf("message %d, %31s", n, "of 42 bytes") }
	for n := range 5 {
		write(t, client, message(n))
		<-l.data
	}
	client.Close()

	l.wait(dtlsserver.KindSessionClosed)
	conn := l.accept()
	wantRead(t, conn, message(0))
	wantRead(t, conn, message(1))
	wantReadError(t, conn, io.EOF)
	if stats := l.Stats(); stats != (Stats{Dropped: 3}) {
		t.Errorf("%+v", stats)
	}

	first, _ := l.dial(nil)
	l.wantRefused()
	if stats := l.Stats(); stats != (Stats{Conns: 1, Waiting: 1, Refused: 1, Dropped: 3}) {
		t.Errorf("%+v", stats)
	}
	wantEcho(t, l.accept(), first)
	third, _ := l.dial(nil)
	wantEcho(t, l.accept(), third)
}

func TestListenErrors(t *testing.T) {
	t.Parallel()
	user := dtlsserver.NopHandler{}
	tests := []struct {
		name    string
		config  ListenConfig
		server  *dtlsserver.Server
		address string
		want    string
	}{
		{"backlog", ListenConfig{Backlog: -1}, newServer(), "", "dtlsnet: ListenConfig.Backlog is negative: -1"},
		{"connection buffer", ListenConfig{ConnBuffer: -2}, newServer(), "", "dtlsnet: ListenConfig.ConnBuffer is negative: -2"},
		{"no key", ListenConfig{}, &dtlsserver.Server{}, "", "Server has no credentials"},
		{"address", ListenConfig{}, newServer(), "192.0.2.1:0", "dtlsserver: listen udp"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.server.Handler = user
			_, err := tt.config.Listen("udp", cmp.Or(tt.address, "127.0.0.1:0"), tt.server)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if tt.server.Handler != user {
				t.Errorf("Handler is %T", tt.server.Handler)
			}
			if tt.server.IsListening() {
				t.Error("the server listens")
			}
		})
	}
}

var errBroken = errors.New("the socket is broken")

// brokenSocket fails each read.
type brokenSocket struct{ net.PacketConn }

func (brokenSocket) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, errBroken }
func (brokenSocket) LocalAddr() net.Addr                    { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }
func (brokenSocket) SetReadDeadline(time.Time) error        { return nil }
func (brokenSocket) SetWriteDeadline(time.Time) error       { return nil }
func (brokenSocket) Close() error                           { return nil }

// TestSocketFails: Accept says why.
func TestSocketFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newServer()
		server.ListenPacket = func(string, string) (net.PacketConn, error) { return brokenSocket{}, nil }
		l, err := Listen("udp", "192.0.2.1:1", server)
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Accept()
		wantError(t, err, "accept", errBroken)
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}
