// Command coap serves CoAP over DTLS with pre-shared keys (RFC 7252 section
// 9.1.3.1). The library go-coap serves the requests, on connections from dtlsnet.
// Each client has a note that it can read and write:
//
//	coap-client-gnutls -u sensor-1 -k "a key of sensor 1" -m put -e "21.5 degrees" coaps://127.0.0.1/note
//	coap-client-gnutls -u sensor-1 -k "a key of sensor 1" coaps://127.0.0.1/note
package main

import (
	"bytes"
	"context"
	"flag"
	"log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"

	coapdtls "github.com/plgd-dev/go-coap/v3/dtls/server"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsnet"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:5684", "listen on `host:port`")
	flag.Parse()
	listener, err := dtlsnet.Listen("udp", *addr, &dtlsserver.Server{
		Handler: dtlsserver.LogHandler(slog.Default()),
		PSK: dtlsserver.StaticPSK(map[string][]byte{ // a service has random keys in a database
			"sensor-1": []byte("a key of sensor 1"),
			"sensor-2": []byte("a key of sensor 2"),
		}),
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := serve(ctx, listener); err != nil {
		log.Fatal(err)
	}
}

// serve answers requests until ctx is done.
func serve(ctx context.Context, listener *dtlsnet.Listener) error {
	notes := &notes{of: make(map[string][]byte)}
	router := mux.NewRouter()
	if err := router.Handle("/note", notes); err != nil {
		return err
	}
	server := coapdtls.New(options.WithMux(router), options.WithBlockwise(false, 0, 0))
	defer context.AfterFunc(ctx, server.Stop)()
	return server.Serve(acceptor{listener})
}

// acceptor is a Listener as go-coap wants it.
type acceptor struct{ *dtlsnet.Listener }

func (a acceptor) AcceptWithContext(context.Context) (net.Conn, error) {
	conn, err := a.Accept() // ends when go-coap calls Close
	if err != nil {
		err = coapnet.ErrListenerIsClosed
	}
	return conn, err
}

// notes are the clients' notes, by PSK identity.
type notes struct {
	mu sync.Mutex // guards of
	of map[string][]byte
}

// ServeCOAP answers one request.
func (n *notes) ServeCOAP(w mux.ResponseWriter, r *mux.Message) {
	identity := w.Conn().NetConn().(*dtlsnet.Conn).Session().Identity().Value
	n.mu.Lock()
	defer n.mu.Unlock()
	code, content := codes.MethodNotAllowed, []byte(nil)
	switch body, err := r.ReadBody(); {
	case err != nil:
		code = codes.BadRequest
	case r.Code() == codes.GET:
		code, content = codes.Content, n.of[identity]
	case r.HasOption(message.Block1): // a note must fit one message
		code = codes.RequestEntityTooLarge
	case r.Code() == codes.PUT:
		code, n.of[identity] = codes.Changed, bytes.Clone(body)
	}
	if err := w.SetResponse(code, message.TextPlain, bytes.NewReader(content)); err != nil {
		slog.Warn("cannot answer", "remote", w.Conn().RemoteAddr(), "err", err)
	}
}
