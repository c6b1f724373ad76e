package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

func TestRun(t *testing.T) {
	t.Parallel()
	var stdout bytes.Buffer
	if err := run(t.Context(), &stdout); err != nil {
		t.Fatal(err)
	}
	if want := "\"sensor-1\" has connected\nthe client has received \"hello\"\n"; stdout.String() != want {
		t.Errorf("printed %q, not %q", stdout.String(), want)
	}
}

func TestOnlySensors(t *testing.T) {
	t.Parallel()
	named := func(name string) []*x509.Certificate {
		return []*x509.Certificate{{Subject: pkix.Name{CommonName: name}}}
	}
	for _, tt := range []struct {
		name  string
		certs []*x509.Certificate
		want  string
	}{
		{"sensor", named("sensor-2"), "<nil>"},
		{"another", named("actor-1\n"), `"actor-1\n" is no sensor`},
		{"pre-shared key", nil, "a client without certificate"},
	} {
		if got := fmt.Sprint(onlySensors(t.Context(), &dtlsserver.VerifyRequest{State: dtlsserver.ConnectionState{PeerCertificates: tt.certs}})); got != tt.want {
			t.Errorf("%s: %s, not %s", tt.name, got, tt.want)
		}
	}
}

// TestRefused: the server asks onlySensors.
func TestRefused(t *testing.T) {
	t.Parallel()
	ca := dtlsservertest.NewAuthority(t)
	server := dtlsservertest.NewUnstartedServer(t, newServer(ca.Issue("localhost"), ca.Pool, io.Discard))
	server.Authority = ca
	server.Start()
	config := server.ClientConfig()
	config.Certificate = ca.Issue("actor-1")
	if _, err := server.DialContext(t.Context(), config); err == nil {
		t.Error("actor-1 has connected")
	}
	failed := server.Events.Want(dtlsserver.KindHandshakeFailed, "of actor-1")
	if !strings.Contains(failed.Err.Error(), `"actor-1" is no sensor`) {
		t.Error(failed.Err)
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout bytes.Buffer
	if err := run(ctx, &stdout); err == nil {
		t.Error("no error")
	}
}
