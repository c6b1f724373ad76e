package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/pion/dtls/v2"
)

const (
	identity = "test client"
	key      = "a key that nobody is shown"
)

func newTestConsole(t *testing.T) *webConsole {
	t.Helper()
	c := newConsole(dtlsserver.StaticPSK(map[string][]byte{identity: []byte(key)}), false)
	t.Cleanup(func() { _ = c.server.Close() })
	return c
}

// site is a running webConsole with its page.
type site struct {
	*webConsole
	t   *testing.T
	web *httptest.Server
}

func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteWith(t, func(*http.Server) {})
}

// newSiteWith returns a site whose web server has been edited.
func newSiteWith(t *testing.T, edit func(*http.Server)) *site {
	t.Helper()
	c := newTestConsole(t)
	if err := c.listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	web := httptest.NewUnstartedServer(nil)
	web.Config = newWeb(c.routes())
	edit(web.Config)
	web.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	web.Start()
	t.Cleanup(web.Close)
	t.Cleanup(cancel)
	return &site{c, t, web}
}

// dial connects a client. When it returns, the server has told of it.
func (s *site) dial() *dtls.Conn {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	news, leave, _ := s.hub.join()
	defer leave()
	client, err := dial(ctx, s.server.Addr(), identity, []byte(key))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = client.Close() })
	for at := (cursor{}); ; {
		var b batch
		b, at = s.hub.after(at)
		if slices.ContainsFunc(b.Events, func(e event) bool {
			return strings.HasPrefix(e.Text, client.LocalAddr().String()+": handshake complete")
		}) {
			return client
		}
		select {
		case <-news:
		case <-ctx.Done():
			s.t.Fatal("the server does not tell of the client")
		}
	}
}

// wantRead wants a client to receive a message.
func wantRead(t *testing.T, client *dtls.Conn, want string) {
	t.Helper()
	_ = client.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 2048)
	n, err := client.Read(b)
	if err != nil || string(b[:n]) != want {
		t.Fatalf("the client reads %q, %v, want %q", b[:n], err, want)
	}
}

// request returns a request of the page's own, which tests spoil.
func (s *site) request(method, path string, form url.Values) *http.Request {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.web.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", s.web.URL)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("X-Token", s.token)
	}
	return r
}

// do returns the status and the text of the answer.
func (s *site) do(r *http.Request) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience/3)
	defer cancel()
	answer, err := s.web.Client().Do(r.WithContext(ctx))
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

// want wants a form to be answered with a status and a text.
func (s *site) want(path string, form url.Values, status int, part string) {
	s.t.Helper()
	got, text := s.do(s.request(http.MethodPost, path, form))
	if got != status || !strings.Contains(text, part) {
		s.t.Fatalf("%s %v is answered with status %d, %q, want %d, %q", path, form, got, text, status, part)
	}
}

// watch connects to the stream, from where a cursor is.
func (s *site) watch(last string) *watcher {
	s.t.Helper()
	r := s.request(http.MethodGet, "/events?token="+s.token, nil)
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	r = r.WithContext(ctx)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	answer, err := s.web.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cancel()
		_ = answer.Body.Close()
	})
	if kind := answer.Header.Get("Content-Type"); answer.StatusCode != http.StatusOK || kind != "text/event-stream" {
		s.t.Fatalf("status %d, type %q", answer.StatusCode, kind)
	}
	return &watcher{s.t, bufio.NewReader(answer.Body), nil}
}

// watcher is a browser that reads the stream.
type watcher struct {
	t   *testing.T
	r   *bufio.Reader
	raw []byte // all that was read
}

// next returns the next batch.
func (w *watcher) next() told {
	w.t.Helper()
	var text strings.Builder
	for {
		line, err := w.r.ReadString('\n')
		if err != nil {
			w.t.Fatalf("the stream ends: %v", err)
		}
		w.raw = append(w.raw, line...)
		text.WriteString(line)
		if line == "\n" && strings.Contains(text.String(), "data: ") {
			return decode(w.t, text.String())
		}
	}
}

// until returns the first batch that a condition holds for.
func (w *watcher) until(holds func(told) bool) told {
	w.t.Helper()
	for {
		if b := w.next(); holds(b) {
			return b
		}
	}
}

// TestHistory: a new browser is told what happened before it came, one that
// comes again only what it has not been told.
func TestHistory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	client := s.dial()
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	wantRead(t, client, "to "+client.LocalAddr().String()+": ACK")
	s.sample()

	b := s.watch("").next()
	if !b.hasEvent("info", "listening on "+s.address()) || !b.hasEvent("info", "handshake complete") {
		t.Errorf("the events are %v", b.Events)
	}
	peer := client.LocalAddr().String()
	if len(b.Messages) != 1 || b.Messages[0].Peer != peer || b.Messages[0].Text != "hello" || !strings.HasPrefix(b.Messages[0].Record, "17fefd0001") {
		t.Errorf("the messages are %v", b.Messages)
	}
	if len(b.Peers) != 1 || b.Peers[0] != peer || b.Listening != s.address() {
		t.Errorf("the peers are %q, the address is %q", b.Peers, b.Listening)
	}
	if len(b.Samples) != 1 || b.Samples[0].Stats.Sessions != 1 || b.Samples[0].Stats.MessagesReceived != 1 {
		t.Errorf("the samples are %v", b.Samples)
	}

	s.putMessageText("later")
	again := s.watch(b.ID).next()
	if len(again.Messages) != 1 || again.Messages[0].Text != "later" || len(again.Events)+len(again.Samples) != 0 {
		t.Errorf("a browser that comes again is told %+v", again)
	}
}

func (s *site) putMessageText(line string) {
	s.hub.putMessage(message{Text: text(excerptOf([]byte(line)))})
}

// TestStreamOutlasts: a stream goes on beyond the time that a request may take.
func TestStreamOutlasts(t *testing.T) {
	t.Parallel()
	const timeout = 20 * time.Millisecond
	s := newSiteWith(t, func(web *http.Server) { web.ReadTimeout = timeout })
	w := s.watch("")
	for i, began := 0, time.Now(); time.Since(began) < 5*timeout; i++ {
		line := strconv.Itoa(i)
		s.putMessageText(line)
		w.until(func(b told) bool { return len(b.Messages) > 0 && b.Messages[len(b.Messages)-1].Text == line })
	}
}

// TestSilentConnections: whoever connects and does not go on is not waited for.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	s := newSiteWith(t, func(web *http.Server) {
		for _, timeout := range []*time.Duration{&web.ReadHeaderTimeout, &web.ReadTimeout, &web.IdleTimeout} {
			if *timeout == 0 || *timeout > 10*time.Second {
				t.Errorf("a timeout is %v", *timeout)
			}
			*timeout = 20 * time.Millisecond
		}
	})
	for name, sends := range map[string]string{
		"nothing":           "",
		"half a header":     "GET / HTTP/1.1\r\nHost: x",
		"half a body":       "POST /send HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
		"no second request": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", s.web.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, sends); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection is still open", name)
		}
	}
}

// TestStreamFollows: what happens is told at once, and the key is never.
func TestStreamFollows(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := s.watch("")
	client := s.dial()
	w.until(func(b told) bool { return b.hasEvent("info", "handshake complete") })
	const hostile = "<script>alert(1)</script>\x1b[2J\r\nid: 9\n\n"
	if _, err := client.Write([]byte(hostile)); err != nil {
		t.Fatal(err)
	}
	b := w.until(func(b told) bool { return len(b.Messages) > 0 })
	if want := `<script>alert(1)</script>\x1b[2J\r\nid: 9\n\n`; b.Messages[0].Text != want {
		t.Errorf("the text is %q, want %q", b.Messages[0].Text, want)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stranger := make(chan error, 1)
	go func() {
		_, err := dial(ctx, s.server.Addr(), "nob\x1bdy", []byte(key))
		stranger <- err
	}()
	w.until(func(b told) bool { return b.hasEvent("warning", `unknown PSK identity, identity "nob\x1bdy"`) })
	cancel()
	if err := <-stranger; err == nil {
		t.Error("a client with an unknown identity has connected")
	}

	for _, secret := range []string{key, hex.EncodeToString([]byte(key)), s.token} {
		if bytes.Contains(w.raw, []byte(secret)) {
			t.Errorf("the stream shows %q", secret)
		}
	}
	if bytes.ContainsAny(w.raw, "<\x1b\r") {
		t.Error("there are raw control characters or tags in the stream")
	}
}

func TestStartAndStop(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := s.watch("")
	client := s.dial()

	s.want("/stop", nil, http.StatusNoContent, "")
	b := w.until(func(b told) bool { return b.hasEvent("info", "stopped listening") })
	if b.Listening != "" || s.server.IsListening() {
		t.Errorf("listening on %q after the stop", b.Listening)
	}
	_ = client.SetReadDeadline(time.Now().Add(patience))
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads %v, want EOF", err)
	}
	s.want("/stop", nil, http.StatusNoContent, "") // nothing happens

	s.want("/listen", url.Values{"address": {"127.0.0.1:0"}}, http.StatusNoContent, "")
	b = w.until(func(b told) bool { return b.hasEvent("info", ": listening") || b.hasEvent("info", "listening on") })
	if b.Listening != s.address() || !s.server.IsListening() {
		t.Errorf("listening on %q after the start", b.Listening)
	}
	s.dial()

	before := s.address()
	s.want("/listen", url.Values{"address": {"nonsense"}}, http.StatusUnprocessableEntity, "nonsense")
	if s.address() != before {
		t.Error("a wrong address has stopped the server")
	}
}

// TestKnownKey: with a key that everybody knows, nobody else can connect.
func TestKnownKey(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.knownKey = true
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "localhost.example:0", ""} {
		s.want("/listen", url.Values{"address": {address}}, http.StatusUnprocessableEntity, "loopback addresses only")
	}
	s.want("/listen", url.Values{"address": {"localhost:0"}}, http.StatusNoContent, "")
}

func TestSend(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	client := s.dial()
	peer := client.LocalAddr().String()
	for _, line := range []string{"Grüße & <b>", ""} {
		s.want("/send", url.Values{"peer": {peer}, "text": {line}}, http.StatusNoContent, "")
		wantRead(t, client, line)
	}
	b := s.watch("").next()
	if len(b.Messages) != 2 || b.Messages[0].Text != "Grüße & <b>" || b.Messages[0].Peer != peer {
		t.Errorf("the messages are %v", b.Messages)
	}

	for _, test := range []struct {
		name, peer, text string
		status           int
		part             string
	}{
		{"no peer", "", "hello", http.StatusUnprocessableEntity, "choose a peer"},
		{"no such peer", "192.0.2.1:1", "hello", http.StatusUnprocessableEntity, "192.0.2.1:1 has no session"},
		{"long", peer, strings.Repeat("x", 16385), http.StatusUnprocessableEntity, dtlsserver.ErrMessageTooLong.Error()},
		{"very long", peer, strings.Repeat("x", maxForm), http.StatusBadRequest, "too large"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &site{s.webConsole, t, s.web}
			s.want("/send", url.Values{"peer": {test.peer}, "text": {test.text}}, test.status, test.part)
		})
	}
}

// TestRefused: what does not come from the page changes nothing and is told
// nothing.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, test := range []struct {
		name   string
		status int
		spoil  func(*http.Request)
	}{
		{"rebound name", http.StatusForbidden, func(r *http.Request) { r.Host = "rebound.example:8080" }},
		{"name like an address", http.StatusForbidden, func(r *http.Request) { r.Host = "127.0.0.1.rebound.example" }},
		{"name like localhost", http.StatusForbidden, func(r *http.Request) { r.Host = "localhost.rebound.example" }},
		{"other address", http.StatusForbidden, func(r *http.Request) { r.Host = "192.0.2.1" }},
		{"another site", http.StatusForbidden, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }},
		{"another port", http.StatusForbidden, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }},
		{"another site in an old browser", http.StatusForbidden, func(r *http.Request) {
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Set("Origin", "http://other.example")
		}},
		{"sandboxed frame in an old browser", http.StatusForbidden, func(r *http.Request) {
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Set("Origin", "null")
		}},
		{"no token", http.StatusForbidden, func(r *http.Request) { r.Header.Del("X-Token") }},
		{"wrong token", http.StatusForbidden, func(r *http.Request) { r.Header.Set("X-Token", "x"+s.token[1:]) }},
		{"token in the query", http.StatusForbidden, func(r *http.Request) {
			r.Header.Del("X-Token")
			r.URL.RawQuery = "token=" + s.token
		}},
		{"GET", http.StatusMethodNotAllowed, func(r *http.Request) { r.Method = http.MethodGet }},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, path := range []string{"/stop", "/listen", "/send"} {
				r := s.request(http.MethodPost, path, url.Values{"address": {"127.0.0.1:0"}})
				test.spoil(r)
				if status, text := s.do(r); status != test.status {
					t.Errorf("%s is answered with status %d, %q, want %d", path, status, text, test.status)
				}
			}
		})
	}
	before := s.address()
	if !s.server.IsListening() {
		t.Fatal("the server does not listen any more")
	}

	for name, spoil := range map[string]func(*http.Request){
		"rebound name": func(r *http.Request) { r.Host = "rebound.example" },
		"no token":     func(r *http.Request) { r.URL.RawQuery = "" },
		"wrong token":  func(r *http.Request) { r.URL.RawQuery = "token=" },
	} {
		t.Run("events, "+name, func(t *testing.T) {
			r := s.request(http.MethodGet, "/events?token="+s.token, nil)
			spoil(r)
			if status, text := s.do(r); status != http.StatusForbidden || strings.Contains(text, before) {
				t.Errorf("answered with status %d, %q", status, text)
			}
		})
	}
	s.want("/stop", nil, http.StatusNoContent, "") // the request unspoilt
}

// TestPage: the page holds nothing that is not for everybody, and may load
// nothing.
func TestPage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	answer, err := s.web.Client().Get(s.web.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK || string(b) != page {
		t.Errorf("status %d, %d bytes", answer.StatusCode, len(b))
	}
	if bytes.Contains(b, []byte(s.token)) {
		t.Error("the page has the token")
	}
	policy := answer.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q has no %s", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options":       "nosniff",
		"Referrer-Policy":              "no-referrer",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Cache-Control":                "no-store",
		"Access-Control-Allow-Origin":  "",
	} {
		if got := answer.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	// Names that are no resources: the namespace in the icon.
	if rest := strings.ReplaceAll(page, "http://www.w3.org/2000/svg", ""); strings.Contains(rest, "http:") || strings.Contains(rest, "https:") {
		t.Error("the page refers to outside resources")
	}
	if strings.Contains(page, "innerHTML") || strings.Contains(page, "insertAdjacentHTML") || strings.Contains(page, "document.write") {
		t.Error("the page makes HTML of text")
	}
}

func TestIsLoopback(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:80": true, "127.9.9.9:80": true, "localhost": true, "LocalHost:80": true,
		"[::1]": true, "[::1]:80": true, "::1": true, "[::ffff:127.0.0.1]:80": true,
		"": false, ":80": false, "0.0.0.0:80": false, "[::]:80": false, "192.0.2.1:80": false, "[2001:db8::1]:80": false,
		"localhost.": false, "localhost.example:80": false, "127.0.0.1.example": false, "127.1:80": false, "2130706433": false,
	} {
		if got := isLoopback(address); got != want {
			t.Errorf("isLoopback(%q) = %v", address, got)
		}
	}
}
