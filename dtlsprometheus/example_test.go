package dtlsprometheus_test

import (
	"bufio"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsprometheus"
)

// A server with metrics, and a scrape of them. A service would register with
// prometheus.DefaultRegisterer and serve promhttp.Handler() at /metrics, on an
// address that only its operators reach.
func Example() {
	server := &dtlsserver.Server{
		PSK: dtlsserver.StaticPSK(map[string][]byte{"sensor-1": []byte("a random key, 32 bytes or more..")}),
	}
	metrics := dtlsprometheus.New(server)
	server.Handler = dtlsserver.MultiHandler(metrics, dtlsserver.HandlerFuncs{
		OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) { s.Write(plainText) },
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)
	web := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer web.Close()

	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	resp, err := http.Get(web.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if strings.Contains(lines.Text(), "dtls_server_handshakes_") {
			fmt.Println(lines.Text())
		}
	}
	// Output:
	// # HELP dtls_server_handshakes_completed_total Handshakes completed, each of which opens a session.
	// # TYPE dtls_server_handshakes_completed_total counter
	// dtls_server_handshakes_completed_total 0
	// # HELP dtls_server_handshakes_failed_total Handshakes that ended unfinished.
	// # TYPE dtls_server_handshakes_failed_total counter
	// dtls_server_handshakes_failed_total 0
	// # HELP dtls_server_handshakes_in_progress Handshakes in progress.
	// # TYPE dtls_server_handshakes_in_progress gauge
	// dtls_server_handshakes_in_progress 0
	// # HELP dtls_server_handshakes_started_total Cookies returned, each of which starts a handshake.
	// # TYPE dtls_server_handshakes_started_total counter
	// dtls_server_handshakes_started_total 0
}

// Two servers in one registry, told apart by a label.
func ExampleNew_severalServers() {
	registry := prometheus.NewRegistry()
	for name, server := range map[string]*dtlsserver.Server{
		"coap":   {PSK: dtlsserver.StaticPSK(nil)},
		"syslog": {PSK: dtlsserver.StaticPSK(nil)},
	} {
		metrics := dtlsprometheus.New(server)
		server.Handler = metrics // and the service's own
		prometheus.WrapRegistererWith(prometheus.Labels{"server": name}, registry).MustRegister(metrics)
	}
	gathered, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, family := range gathered {
		if family.GetName() == "dtls_server_sessions" {
			for _, m := range family.GetMetric() {
				fmt.Println(m.GetLabel()[0].GetValue(), m.GetGauge().GetValue())
			}
		}
	}
	// Output:
	// coap 0
	// syslog 0
}
