package main

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

const key = "\x1a\x2b\x3c\x4d\x5e\x6f"

// start starts a server with a database of its own.
func start(t *testing.T) (*dtlsservertest.Server, *sql.DB) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "devices.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec(schema); err != nil {
		t.Fatal(err)
	}
	return dtlsservertest.StartServer(t, newServer(db)), db
}

func TestKnownDevice(t *testing.T) {
	t.Parallel()
	server, db := start(t)
	want := func(identity, key, reply string) {
		t.Helper()
		if got := server.DialPSK(identity, []byte(key)).Ask("21.5"); got != reply {
			t.Errorf("the reply is %q, not %q", got, reply)
		}
	}
	want("sensor-1", key, `greenhouse: "21.5"`)

	odd := "sensor\x00\xff'; DROP TABLE devices; --" // an identity is any bytes
	if _, err := db.Exec(`INSERT INTO devices VALUES (?, ?, ?)`, []byte(odd), []byte("another key"), "cellar"); err != nil {
		t.Fatal(err)
	}
	want(odd, "another key", `cellar: "21.5"`)
}

func TestOthers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, identity string
		broken         bool
		want           dtlsserver.EventKind
	}{
		{"unknown device", "sensor-2", false, dtlsserver.KindUnknownPSKIdentity},
		{"broken database", "sensor-1", true, dtlsserver.KindPSKFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server, db := start(t)
			if tt.broken {
				db.Close()
			}
			ctx, cancel := context.WithCancel(t.Context())
			refused := make(chan error, 1)
			go func() {
				_, err := server.DialContext(ctx, &dtlsservertest.ClientConfig{Identity: tt.identity, Key: []byte(key)})
				refused <- err
			}()
			e := server.Events.Want(tt.want, "after the client's identity has come")
			if e.Identity != tt.identity {
				t.Errorf("it is about %q", e.Identity)
			}
			cancel() // nobody tells the client
			if err := <-refused; err == nil {
				t.Error("the client has connected")
			}
		})
	}
}
