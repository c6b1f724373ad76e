// Psksql looks up pre-shared keys in a database with database/sql. The database here
// is SQLite. The example is a separate module, so that the others do not depend on the
// driver.
//
//	go run . -db devices.db
//	openssl s_client -dtls1_2 -connect 127.0.0.1:4433 -psk_identity sensor-1 -psk 1a2b3c4d5e6f
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"

	_ "modernc.org/sqlite"

	"github.com/dtlsserver/dtlsserver"
)

// An identity is any bytes. A service draws keys from crypto/rand.
const schema = `
CREATE TABLE IF NOT EXISTS devices (identity BLOB PRIMARY KEY, key BLOB NOT NULL, place TEXT NOT NULL);
INSERT OR IGNORE INTO devices VALUES (CAST('sensor-1' AS BLOB), x'1a2b3c4d5e6f', 'greenhouse');`

func main() {
	file := flag.String("db", "devices.db", "keep devices in this `file`")
	flag.Parse()
	db, err := sql.Open("sqlite", *file)
	if err == nil {
		_, err = db.Exec(schema)
	}
	if err != nil {
		log.Fatal(err)
	}
	server := newServer(db)
	if err := server.Listen("udp", "127.0.0.1:4433"); err != nil {
		log.Fatal(err)
	}
	select {} // the server runs until the program ends
}

// newServer returns a server for the devices in db.
func newServer(db *sql.DB) *dtlsserver.Server {
	return &dtlsserver.Server{
		PSK: func(ctx context.Context, req dtlsserver.PSKRequest) (dtlsserver.PSK, error) {
			return lookUp(ctx, db, req.Identity)
		},
		Handler: dtlsserver.MultiHandler(dtlsserver.LogHandler(slog.Default()), dtlsserver.HandlerFuncs{
			OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) {
				fmt.Fprintf(s, "%s: %q", s.Value().(*device).place, plainText)
			},
		}),
	}
}

// device is what the database has of one, but for its key.
type device struct{ place string }

// lookUp finds the key of a device. It may take its time: other clients do not
// wait, and ctx is done when this one gives up.
func lookUp(ctx context.Context, db *sql.DB, identity string) (dtlsserver.PSK, error) {
	var key []byte
	var d device
	row := db.QueryRowContext(ctx, `SELECT key, place FROM devices WHERE identity = ?`, []byte(identity))
	switch err := row.Scan(&key, &d.place); {
	case errors.Is(err, sql.ErrNoRows):
		return dtlsserver.PSK{}, dtlsserver.ErrUnknownPSKIdentity // a Warning
	case err != nil:
		return dtlsserver.PSK{}, fmt.Errorf("devices: %w", err) // an Error
	}
	return dtlsserver.PSK{Key: key, Value: &d}, nil // Value becomes that of the session
}
