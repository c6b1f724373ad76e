package dtlsprometheus

// What of dtlsserver.Stats is exported, and under which names.

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dtlsserver/dtlsserver"
)

// figure is one number of dtlsserver.Stats as a metric.
type figure struct {
	desc  *prometheus.Desc
	typ   prometheus.ValueType
	label string // the value of desc's label; empty: it has none
	value func(*dtlsserver.Stats) float64
}

// metric returns the figure's metric for some statistics.
func (f *figure) metric(stats *dtlsserver.Stats) prometheus.Metric {
	if f.label == "" {
		return prometheus.MustNewConstMetric(f.desc, f.typ, f.value(stats))
	}
	return prometheus.MustNewConstMetric(f.desc, f.typ, f.value(stats), f.label)
}

// figures are all of dtlsserver.Stats, each once, which TestEachFigureOnce
// checks.
var figures = func() (all []figure) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, name), help, labels, nil)
	}
	gauge := func(name, help string, value func(*dtlsserver.Stats) int) {
		all = append(all, figure{desc(name, help), prometheus.GaugeValue, "",
			func(s *dtlsserver.Stats) float64 { return float64(value(s)) }})
	}
	counter := func(name, help string, value func(*dtlsserver.Stats) uint64) {
		all = append(all, figure{desc(name, help), prometheus.CounterValue, "",
			func(s *dtlsserver.Stats) float64 { return float64(value(s)) }})
	}
	type reason struct {
		name  string
		value func(*dtlsserver.Drops) uint64
	}
	counters := func(name, help, label string, reasons ...reason) {
		d := desc(name, help, label)
		for _, r := range reasons {
			all = append(all, figure{d, prometheus.CounterValue, r.name,
				func(s *dtlsserver.Stats) float64 { return float64(r.value(&s.Dropped)) }})
		}
	}
	type stats = dtlsserver.Stats
	type drops = dtlsserver.Drops

	gauge("sessions", "Open sessions.", func(s *stats) int { return s.Sessions })
	gauge("handshakes_in_progress", "Handshakes in progress.", func(s *stats) int { return s.Handshakes })
	gauge("handshake_memory_bytes", "Memory of handshakes in progress for messages that have come in part.",
		func(s *stats) int { return s.HandshakeMemory })

	counter("received_datagrams_total", "Datagrams received.", func(s *stats) uint64 { return s.DatagramsReceived })
	counter("received_bytes_total", "Bytes of UDP payload received.", func(s *stats) uint64 { return s.BytesReceived })
	counter("sent_datagrams_total", "Datagrams sent.", func(s *stats) uint64 { return s.DatagramsSent })
	counter("sent_bytes_total", "Bytes of UDP payload sent.", func(s *stats) uint64 { return s.BytesSent })
	counter("received_messages_total", "Messages of peers given to the handler.",
		func(s *stats) uint64 { return s.MessagesReceived })
	counter("sent_messages_total", "Messages sent to peers.", func(s *stats) uint64 { return s.MessagesSent })

	counter("hello_verify_requests_total", "Cookies sent to clients that had not proven their address.",
		func(s *stats) uint64 { return s.HelloVerifyRequests })
	counter("version_alerts_total", "Alerts to clients without DTLS 1.2 that had not proven their address.",
		func(s *stats) uint64 { return s.VersionAlerts })
	counter("handshakes_started_total", "Cookies returned, each of which starts a handshake.",
		func(s *stats) uint64 { return s.HandshakesStarted })
	counter("handshakes_completed_total", "Handshakes completed, each of which opens a session.",
		func(s *stats) uint64 { return s.HandshakesCompleted })
	counter("handshakes_failed_total", "Handshakes that ended unfinished.", func(s *stats) uint64 { return s.HandshakesFailed })
	counter("sessions_closed_total", "Open sessions that ended.", func(s *stats) uint64 { return s.SessionsClosed })
	counter("peers_moved_total", "Changes of the addresses of open sessions.", func(s *stats) uint64 { return s.PeersMoved })

	counters("dropped_datagrams_total", "Received datagrams dropped whole, by reason.", "reason",
		reason{"unexpected_datagram", func(d *drops) uint64 { return d.UnexpectedDatagrams }},
		reason{"unknown_connection_id", func(d *drops) uint64 { return d.UnknownConnectionIDs }},
		reason{"truncated", func(d *drops) uint64 { return d.Truncated }},
		reason{"version", func(d *drops) uint64 { return d.Versions }},
		reason{"wrong_cookie", func(d *drops) uint64 { return d.WrongCookies }},
	)
	counters("dropped_records_total", "Received records, or messages in them, dropped, by reason.", "reason",
		reason{"malformed", func(d *drops) uint64 { return d.Malformed }},
		reason{"epoch", func(d *drops) uint64 { return d.Epoch }},
		reason{"replayed", func(d *drops) uint64 { return d.Replayed }},
		reason{"forged", func(d *drops) uint64 { return d.Forged }},
		reason{"unauthenticated", func(d *drops) uint64 { return d.Unauthenticated }},
		reason{"repeated", func(d *drops) uint64 { return d.Repeated }},
		reason{"early_data", func(d *drops) uint64 { return d.EarlyData }},
		reason{"unexpected_message", func(d *drops) uint64 { return d.UnexpectedMessages }},
		reason{"connection_id", func(d *drops) uint64 { return d.ConnectionIDs }},
		reason{"limit", func(d *drops) uint64 { return d.Limit }},
		reason{"closed", func(d *drops) uint64 { return d.Closed }},
	)
	counters("dropped_hellos_total", "Hellos with a right cookie that started no handshake, by reason.", "reason",
		reason{"replayed", func(d *drops) uint64 { return d.ReplayedHellos }},
		reason{"refused", func(d *drops) uint64 { return d.Refused }},
	)
	counters("evictions_total", "Handshakes and idle sessions that gave way to newer ones at a limit.", "state",
		reason{"handshake", func(d *drops) uint64 { return d.Evicted }},
		reason{"session", func(d *drops) uint64 { return d.EvictedSessions }},
	)
	counters("unsent_datagrams_total", "Datagrams that could not be sent, by reason: the socket was full, or refused them.", "reason",
		reason{"full", func(d *drops) uint64 { return d.SendFull }},
		reason{"failed", func(d *drops) uint64 { return d.SendFailed }},
	)
	return all
}()
