//go:build linux

package main

// The server that is attacked: ours with its defaults, but for what a row needs.

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/dtlsserver/dtlsserver"
)

// attackedEnv has the attackedOptions of a process.
const attackedEnv = "DTLSBENCH_ATTACKED"

// attackedOptions are what a row needs of its server. Zero is the default.
type attackedOptions struct {
	MaxSessions               int
	MaxClientCertificateBytes int
	Certificates              int    // further ones of the server, each with a name of its own
	Wildcard                  bool   // the address that it listens on
	AnyClient                 bool   // certificates of clients are asked for but not verified
	Log                       bool   // events are logged, and the lines counted
	ClientCA                  string // a file
}

// The keys of the attacked server, by identity: that of the honest and that of
// the attacker, where it has one.
const malloryIdentity, malloryKey = "mallory", "a key of mallory"

// attacked is a server, and what it has logged.
type attacked struct {
	ours
	log *countedLog
}

func serveAttacked(c credentials) (service, error) {
	var o attackedOptions
	if err := json.Unmarshal([]byte(os.Getenv(attackedEnv)), &o); err != nil {
		return nil, fmt.Errorf("%s: %w", attackedEnv, err)
	}
	certificate, err := c.load()
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(o.ClientCA)
	if err != nil {
		return nil, err
	}
	s := &dtlsserver.Server{
		PSK: func(_ context.Context, r dtlsserver.PSKRequest) (dtlsserver.PSK, error) {
			switch {
			case strings.HasPrefix(r.Identity, pskIdentity):
				return dtlsserver.PSK{Key: []byte(pskKey)}, nil
			case r.Identity == malloryIdentity:
				return dtlsserver.PSK{Key: []byte(malloryKey)}, nil
			}
			return dtlsserver.PSK{}, dtlsserver.ErrUnknownPSKIdentity
		},
		Certificates:              []tls.Certificate{certificate},
		ClientAuth:                tls.VerifyClientCertIfGiven,
		ClientCAs:                 x509.NewCertPool(),
		MaxSessions:               o.MaxSessions,
		MaxClientCertificateBytes: o.MaxClientCertificateBytes,
	}
	if !s.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("no authority of clients")
	}
	if o.AnyClient {
		s.ClientAuth = tls.RequestClientCert
	}
	for i := range o.Certificates {
		c := newIdentity(fmt.Sprintf("*.service-%d.example", i), nil)
		s.Certificates = append(s.Certificates, tls.Certificate{Certificate: c.chain, PrivateKey: c.key})
	}
	a := attacked{ours: ours{s}, log: &countedLog{}}
	echo := dtlsserver.HandlerFuncs{OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) { s.Write(plainText) }}
	s.Handler = echo
	if o.Log {
		s.Handler = dtlsserver.MultiHandler(echo, dtlsserver.LogHandler(slog.New(slog.NewTextHandler(a.log, nil))))
	}
	address := "127.0.0.1:0"
	if o.Wildcard {
		address = "0.0.0.0:0"
	}
	return a, s.Listen("udp4", address)
}

// attackedState is what the server says of itself.
type attackedState struct {
	dtlsserver.Stats
	Log logFigures
}

func (a attacked) command(name string) string {
	if name != "stats" {
		return "unknown"
	}
	text, err := json.Marshal(attackedState{a.Stats(), a.log.figures()})
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// logFigures are about the lines of a log.
type logFigures struct {
	Warnings int // lines of that level and above
	Longest  int // bytes of the longest line
}

// countedLog counts what is written to it.
type countedLog struct {
	mu sync.Mutex // guards all following
	is logFigures
}

func (l *countedLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !bytes.Contains(line, []byte(" level=INFO ")) {
		l.is.Warnings++
	}
	l.is.Longest = max(l.is.Longest, len(line))
	return len(line), nil
}

func (l *countedLog) figures() logFigures {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.is
}

func (p *process) attackedState() (s attackedState, err error) {
	line, err := p.command("stats")
	if err == nil {
		err = json.Unmarshal([]byte(line), &s)
	}
	return s, err
}
