package dtlsprometheus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/dtlsserver/dtlsserver"
)

// patience is how long a client may take.
const patience = 30 * time.Second

var keys = dtlsserver.StaticPSK(map[string][]byte{"sensor-1": []byte("sixteen byte key")})

// number gives each number of a struct a value of its own, from 1 on, and
// returns how many there are.
func number(t *testing.T, v reflect.Value, n int) int {
	t.Helper()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Int:
			n++
			f.SetInt(int64(n))
		case reflect.Uint64:
			n++
			f.SetUint(uint64(n))
		case reflect.Struct:
			n = number(t, f, n)
		default:
			t.Fatalf("%v has a field of kind %v, which this test does not know", v.Type(), f.Kind())
		}
	}
	return n
}

// TestEachFigureOnce: each field of dtlsserver.Stats is exported, and once.
func TestEachFigureOnce(t *testing.T) {
	t.Parallel()
	var stats dtlsserver.Stats
	n := number(t, reflect.ValueOf(&stats).Elem(), 0)
	seen := make(map[float64]string)
	for i := range figures {
		f := &figures[i]
		name := fmt.Sprint(f.desc, f.label)
		value := f.value(&stats)
		if other, ok := seen[value]; ok {
			t.Errorf("%s and %s export the same figure", name, other)
		}
		seen[value] = name
	}
	for i := range n {
		if seen[float64(i+1)] == "" {
			t.Errorf("figure %d of dtlsserver.Stats is not exported; they are numbered %+v", i+1, stats)
		}
	}
	// As many come out of a registry, with the histogram and the events beside.
	m := newMetrics(func() dtlsserver.Stats { return stats })
	registry := prometheus.NewPedanticRegistry() // checks Collect against Describe
	registry.MustRegister(m)
	got, err := testutil.GatherAndCount(registry)
	if err != nil {
		t.Fatal(err)
	}
	if want := n + testutil.CollectAndCount(m.durations) + testutil.CollectAndCount(m.failures) + testutil.CollectAndCount(m.events); got != want {
		t.Errorf("%d series, want %d", got, want)
	}
}

// TestLint: names, types and help texts are as Prometheus wants them.
func TestLint(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(New(new(dtlsserver.Server)))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	metrics, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metrics {
		if !strings.HasPrefix(m.GetName(), "dtls_server_") || !strings.HasSuffix(m.GetHelp(), ".") {
			t.Errorf("%s: %q", m.GetName(), m.GetHelp())
		}
	}
}

// TestDocumented: the package comment lists the metrics that there are.
func TestDocumented(t *testing.T) {
	t.Parallel()
	documented := make(map[string]bool)
	source, err := os.ReadFile("dtlsprometheus.go")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(source)) {
		name, ok := strings.CutPrefix(line, "//\tdtls_server_")
		if ok {
			name, _, _ = strings.Cut(name, " ")
			name, _, _ = strings.Cut(name, "{")
			documented["dtls_server_"+name] = true
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(New(new(dtlsserver.Server)))
	metrics, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metrics {
		if !documented[m.GetName()] {
			t.Errorf("%s is not in the package comment", m.GetName())
		}
		delete(documented, m.GetName())
	}
	for name := range documented {
		t.Errorf("%s is in the package comment only", name)
	}
}

// TestReasons: how a failed handshake is counted.
func TestReasons(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{dtlsserver.ErrHandshakeTimeout, "timeout"},
		{dtlsserver.ErrWrongPSK, "wrong_psk"},
		{&dtlsserver.AlertError{Code: 40, Sent: true}, "alert_sent"},
		{&dtlsserver.AlertError{Code: 40}, "alert_received"},
		{dtlsserver.ErrEvicted, "evicted"},
		{dtlsserver.ErrServerClosed, "closed"},
		{dtlsserver.ErrSessionClosed, "closed"},
		{errors.New("sensor-1"), "other"},
		{nil, "other"},
	} {
		m := newMetrics(func() dtlsserver.Stats { return dtlsserver.Stats{} })
		m.Warning(dtlsserver.Event{Kind: dtlsserver.KindHandshakeFailed, Count: 3, Err: tt.err})
		for _, reason := range reasons {
			want := 0.0
			if reason == tt.want {
				want = 3
			}
			if got := testutil.ToFloat64(m.failures.WithLabelValues(reason)); got != want {
				t.Errorf("%v: %v with the reason %s, want %v", tt.err, got, reason, want)
			}
		}
		if n := testutil.CollectAndCount(m.failures); n != len(reasons) {
			t.Errorf("%v: %d reasons, want %d", tt.err, n, len(reasons))
		}
	}
}

// TestEventKinds: warnings and errors have a series before they first happen.
func TestEventKinds(t *testing.T) {
	t.Parallel()
	m := New(new(dtlsserver.Server))
	before := testutil.CollectAndCount(m.events)
	for _, kind := range []dtlsserver.EventKind{dtlsserver.KindUnexpectedDatagram, dtlsserver.KindKeyUsageLimit, dtlsserver.KindUnknownPSKIdentity} {
		m.Warning(dtlsserver.Event{Kind: kind, Count: 2})
		if got := testutil.ToFloat64(m.events.WithLabelValues("warning", kind.String())); got != 2 {
			t.Errorf("%v: %v, want 2", kind, got)
		}
	}
	for _, kind := range []dtlsserver.EventKind{dtlsserver.KindListenFailed, dtlsserver.KindPSKFailed, dtlsserver.KindEntropyFailed} {
		m.Error(dtlsserver.Event{Kind: kind, Count: 2})
		if got := testutil.ToFloat64(m.events.WithLabelValues("error", kind.String())); got != 2 {
			t.Errorf("%v: %v, want 2", kind, got)
		}
	}
	if after := testutil.CollectAndCount(m.events); after != before {
		t.Errorf("%d series, were %d", after, before)
	}
}

// TestScrape: a server, a client that it serves and one that it cannot, and
// what Prometheus gets over HTTP.
func TestScrape(t *testing.T) {
	t.Parallel()
	server := &dtlsserver.Server{PSK: keys}
	metrics := New(server)
	failed := make(chan struct{}, 1)
	server.Handler = dtlsserver.MultiHandler(metrics, dtlsserver.HandlerFuncs{
		OnWarning: func(e dtlsserver.Event) {
			if e.Kind == dtlsserver.KindHandshakeFailed {
				failed <- struct{}{}
			}
		},
		OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) { s.Write(plainText) },
	})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics)
	web := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	defer web.Close()
	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	client, err := dial(t, server.Addr(), &dtls.Config{
		PSK:             func([]byte) ([]byte, error) { return []byte("sixteen byte key"), nil },
		PSKIdentityHint: []byte("sensor-1"),
		CipherSuites:    []dtls.CipherSuiteID{dtls.TLS_PSK_WITH_AES_128_GCM_SHA256},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	echo(t, client, "the plain text")
	if _, err := dial(t, server.Addr(), &dtls.Config{
		CipherSuites:       []dtls.CipherSuiteID{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		InsecureSkipVerify: true,
	}); err == nil {
		t.Fatal("a client without a common cipher suite has connected")
	}
	select {
	case <-failed:
	case <-time.After(patience):
		t.Fatal("no KindHandshakeFailed")
	}

	text := scrape(t, web.URL)
	for _, line := range []string{
		"dtls_server_sessions 1",
		"dtls_server_handshakes_in_progress 0",
		"dtls_server_hello_verify_requests_total 2",
		"dtls_server_handshakes_started_total 2",
		"dtls_server_handshakes_completed_total 1",
		"dtls_server_handshakes_failed_total 1",
		"dtls_server_received_messages_total 1",
		"dtls_server_sent_messages_total 1",
		`dtls_server_handshake_duration_seconds_bucket{le="+Inf"} 1`,
		"dtls_server_handshake_duration_seconds_count 1",
		`dtls_server_handshake_failure_events_total{reason="alert_sent"} 1`,
		`dtls_server_handshake_failure_events_total{reason="wrong_psk"} 0`,
		`dtls_server_events_total{kind="HandshakeFailed",level="warning"} 1`,
		`dtls_server_events_total{kind="PSKFailed",level="error"} 0`,
		"# TYPE dtls_server_handshake_duration_seconds histogram",
		"# TYPE dtls_server_sent_bytes_total counter",
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("the scrape has no line %q", line)
		}
	}
	for _, secret := range []string{"sensor-1", "sixteen byte key", "the plain text", "127.0.0.1", client.LocalAddr().String()} {
		if strings.Contains(text, secret) {
			t.Errorf("the scrape shows %q", secret)
		}
	}
	_, took, _ := strings.Cut(text, "\ndtls_server_handshake_duration_seconds_sum ")
	took, _, _ = strings.Cut(took, "\n")
	if seconds, err := strconv.ParseFloat(took, 64); err != nil || seconds <= 0 || seconds > patience.Seconds() {
		t.Errorf("the handshake took %q s", took)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := scrape(t, web.URL); !strings.Contains(after, "dtls_server_sessions 0\n") ||
		!strings.Contains(after, "dtls_server_sessions_closed_total 1\n") {
		t.Errorf("after Shutdown:\n%s", after)
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestRefused: what VerifyConnection refuses has a reason of its own.
func TestRefused(t *testing.T) {
	t.Parallel()
	server := &dtlsserver.Server{
		PSK:              keys,
		VerifyConnection: func(context.Context, *dtlsserver.VerifyRequest) error { return errors.New("not today") },
	}
	metrics := New(server)
	server.Handler = metrics
	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := dial(t, server.Addr(), &dtls.Config{
		PSK:             func([]byte) ([]byte, error) { return []byte("sixteen byte key"), nil },
		PSKIdentityHint: []byte("sensor-1"),
		CipherSuites:    []dtls.CipherSuiteID{dtls.TLS_PSK_WITH_AES_128_GCM_SHA256},
	}); err == nil {
		t.Fatal("a client that is refused has connected")
	}
	if err := server.Shutdown(t.Context()); err != nil { // returns when all is told
		t.Fatal(err)
	}
	if got := testutil.ToFloat64(metrics.failures.WithLabelValues("refused")); got != 1 {
		t.Errorf("%v refused, want 1", got)
	}
}

// TestSeveralServers: a label tells servers in one registry apart, without which
// the second is refused.
func TestSeveralServers(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	for _, name := range []string{"coap", "syslog"} {
		m := newMetrics(func() dtlsserver.Stats { return dtlsserver.Stats{Sessions: len(name)} })
		labelled := prometheus.WrapRegistererWith(prometheus.Labels{"server": name}, registry)
		if err := labelled.Register(m); err != nil {
			t.Fatal(err)
		}
		if err := labelled.Register(New(new(dtlsserver.Server))); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			t.Errorf("the same label again: %v", err)
		}
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP dtls_server_sessions Open sessions.
# TYPE dtls_server_sessions gauge
dtls_server_sessions{server="coap"} 4
dtls_server_sessions{server="syslog"} 6
`), "dtls_server_sessions"); err != nil {
		t.Error(err)
	}
}

// dial connects pion's client. Its errors come with the connection closed.
func dial(t *testing.T, server netip.AddrPort, config *dtls.Config) (*dtls.Conn, error) {
	t.Helper()
	conn, err := net.Dial("udp", server.String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client, err := dtls.ClientWithContext(ctx, conn, config)
	if err != nil {
		conn.Close()
	}
	return client, err
}

// echo wants back what it sends.
func echo(t *testing.T, client *dtls.Conn, message string) {
	t.Helper()
	if err := client.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(client, message); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := client.Read(b)
	if err != nil || string(b[:n]) != message {
		t.Fatalf("echo: %q, %v", b[:n], err)
	}
}

// scrape returns what a GET of the address answers.
func scrape(t *testing.T, address string) string {
	t.Helper()
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("scrape: %s, %v\n%s", resp.Status, err, body)
	}
	return string(body)
}
