// Package dtlsprometheus exports the statistics of a dtlsserver.Server to
// Prometheus. It is a separate module, so that importers of dtlsserver do not
// depend on the Prometheus client library unless they use it.
//
// # Use
//
// A Metrics is a prometheus.Collector and a dtlsserver.EventHandler, which is used
// beside the handler of the service:
//
//	server := &dtlsserver.Server{PSK: keys}
//	metrics := dtlsprometheus.New(server)
//	server.Handler = dtlsserver.MultiHandler(metrics, handler)
//	prometheus.MustRegister(metrics)
//
// If a Metrics does not receive the events, the metrics that are marked "by events"
// below do not change. The others do.
//
// Several servers in one process need a label that distinguishes them. A wrapping
// registerer adds it to all metrics of a server:
//
//	prometheus.WrapRegistererWith(prometheus.Labels{"server": "coap"}, registry).MustRegister(metrics)
//
// # Metrics
//
// Labels have few values, and peers cannot choose them: there are no addresses,
// names, identities or alert numbers.
//
//	dtls_server_sessions                                gauge
//	dtls_server_handshakes_in_progress                  gauge
//	dtls_server_handshake_memory_bytes                  gauge
//	dtls_server_received_datagrams_total                counter
//	dtls_server_received_bytes_total                    counter
//	dtls_server_sent_datagrams_total                    counter
//	dtls_server_sent_bytes_total                        counter
//	dtls_server_received_messages_total                 counter
//	dtls_server_sent_messages_total                     counter
//	dtls_server_hello_verify_requests_total             counter
//	dtls_server_version_alerts_total                    counter
//	dtls_server_handshakes_started_total                counter
//	dtls_server_handshakes_completed_total              counter
//	dtls_server_handshakes_failed_total                 counter
//	dtls_server_sessions_closed_total                   counter
//	dtls_server_peers_moved_total                       counter
//	dtls_server_dropped_datagrams_total{reason}         counter
//	dtls_server_dropped_records_total{reason}           counter
//	dtls_server_dropped_hellos_total{reason}            counter
//	dtls_server_evictions_total{state}                  counter
//	dtls_server_unsent_datagrams_total{reason}          counter
//	dtls_server_handshake_duration_seconds              histogram  by events
//	dtls_server_handshake_failure_events_total{reason}  counter    by events
//	dtls_server_events_total{level,kind}                counter    by events
//
// The reasons of drops correspond to the fields of dtlsserver.Drops. Drops are normal
// in a network that loses and repeats datagrams.
//
// The duration is that of completed handshakes, from the returned cookie to the
// client's Finished. It includes the time of the hooks, but not the round trip of the
// cookie. A lost flight costs 1 s, and if it is lost again, another 2 s, 4 s and so on.
// These are the bounds of the upper buckets, so that each one holds the handshakes with
// one more retransmission.
//
// The reasons of handshake failures are
//
//	timeout         the client stopped answering
//	wrong_psk       the client's Finished could not be decrypted: wrong key or unknown identity
//	alert_sent      the server could not agree with the client or understand it
//	alert_received  the client gave up with an alert
//	refused         the client's certificate was not accepted, or VerifyConnection returned an error
//	evicted         the handshake was given up for others at a limit
//	closed          the server, or the session, was closed
//	other           none of these
//
// The kind of an event is the name of its dtlsserver.EventKind, and its level is warning
// or error. Alert on level="error": these events need the operator's attention. A folded
// event counts for all events that it stands for, up to a second late and with the reason
// of the latest. A handshake that failed because the server has no random bytes, or
// because its certificate's key failed, is an event at level error and has no reason here.
//
// The rate of failures, in PromQL:
//
//	rate(dtls_server_handshakes_failed_total[5m]) / rate(dtls_server_handshakes_started_total[5m])
package dtlsprometheus

import (
	"errors"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dtlsserver/dtlsserver"
)

const (
	namespace = "dtls"
	subsystem = "server"
)

// Metrics are the metrics of one Server. They are created by New; the zero value
// is not usable. A Metrics is safe for concurrent use.
type Metrics struct {
	stats     func() dtlsserver.Stats
	durations prometheus.Histogram
	failures  *prometheus.CounterVec
	events    *prometheus.CounterVec
}

var (
	_ prometheus.Collector    = (*Metrics)(nil)
	_ dtlsserver.EventHandler = (*Metrics)(nil)
)

// New returns the metrics of a server. The server need not be configured or
// listening yet. Its Handler should later be set to call the Metrics too.
func New(server *dtlsserver.Server) *Metrics { return newMetrics(server.Stats) }

// buckets are in seconds. See the package comment for those from 1 s on.
var buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 4, 8, 16, 32}

func newMetrics(stats func() dtlsserver.Stats) *Metrics {
	m := &Metrics{
		stats: stats,
		durations: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "handshake_duration_seconds",
			Help:    "Seconds that completed handshakes took, from the returned cookie on.",
			Buckets: buckets,
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "handshake_failure_events_total",
			Help: "Events of failed handshakes, by reason.",
		}, []string{"reason"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "events_total",
			Help: "Events that are warnings or errors, by kind.",
		}, []string{"level", "kind"}),
	}
	// A rate can be computed of what was zero, but not of what was absent.
	for _, reason := range reasons {
		m.failures.WithLabelValues(reason)
	}
	for kind := range dtlsserver.EventKinds() {
		switch kind.Level() {
		case slog.LevelError:
			m.events.WithLabelValues("error", kind.String())
		case slog.LevelWarn:
			m.events.WithLabelValues("warning", kind.String())
		}
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	var last *prometheus.Desc
	for i := range figures {
		if d := figures[i].desc; d != last { // figures of one metric are neighbours
			ch <- d
			last = d
		}
	}
	m.durations.Describe(ch)
	m.failures.Describe(ch)
	m.events.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	stats := m.stats()
	for i := range figures {
		ch <- figures[i].metric(&stats)
	}
	m.durations.Collect(ch)
	m.failures.Collect(ch)
	m.events.Collect(ch)
}

// Error counts the event.
func (m *Metrics) Error(e dtlsserver.Event) {
	m.events.WithLabelValues("error", e.Kind.String()).Add(float64(e.Count))
}

// Warning counts the event.
func (m *Metrics) Warning(e dtlsserver.Event) {
	m.events.WithLabelValues("warning", e.Kind.String()).Add(float64(e.Count))
	if e.Kind == dtlsserver.KindHandshakeFailed {
		m.failures.WithLabelValues(reasonOf(e.Err)).Add(float64(e.Count))
	}
}

// Info records the duration of a completed handshake.
func (m *Metrics) Info(e dtlsserver.Event) {
	if e.Kind == dtlsserver.KindHandshakeComplete {
		m.durations.Observe(e.Time.Sub(e.Session.Stats().Started).Seconds())
	}
}

// DatagramReceived does nothing: the server itself counts messages.
func (m *Metrics) DatagramReceived(*dtlsserver.Session, []byte, []byte) {}

// reasons are the values of the label reason of failures.
var reasons = []string{"timeout", "wrong_psk", "alert_sent", "alert_received", "refused", "evicted", "closed", "other"}

// reasonOf returns which of the reasons an error is.
func reasonOf(err error) string {
	if errors.Is(err, dtlsserver.ErrWrongPSK) { // whatever alert came with it
		return "wrong_psk"
	}
	if alert, ok := errors.AsType[*dtlsserver.AlertError](err); ok {
		switch {
		case !alert.Sent:
			return "alert_received"
		case alert.Unwrap() != nil: // of VerifyConnection or crypto/x509
			return "refused"
		default:
			return "alert_sent"
		}
	}
	switch {
	case errors.Is(err, dtlsserver.ErrHandshakeTimeout):
		return "timeout"
	case errors.Is(err, dtlsserver.ErrEvicted):
		return "evicted"
	case errors.Is(err, net.ErrClosed): // ErrSessionClosed and ErrServerClosed
		return "closed"
	default:
		return "other"
	}
}
