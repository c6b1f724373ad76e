package console_test

import (
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/console"
)

func Example() {
	handler := console.New(os.Stdout) // no terminal here, so no colours

	// A Server tells its Handler; here the example does.
	handler.Warning(dtlsserver.Event{
		Kind:     dtlsserver.KindUnknownPSKIdentity,
		Time:     time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Identity: "nobody\x1b[2J",
	})
	handler.Printf("a line of the program's own")
	// Output:
	// 03:04:05.000 warning unknown PSK identity, identity "nobody\x1b[2J"
	// a line of the program's own
}

// Events are written to the terminal for people, and to a log for machines.
func ExampleNew() {
	server := &dtlsserver.Server{
		PSK: dtlsserver.StaticPSK(map[string][]byte{"sensor-1": []byte("0123456789abcdef")}),
		Handler: dtlsserver.MultiHandler(
			console.New(os.Stderr),
			dtlsserver.LogHandler(slog.New(slog.NewJSONHandler(os.Stdout, nil))),
		),
	}
	if err := server.Listen("udp", "127.0.0.1:4433"); err != nil {
		log.Fatal(err)
	}
	defer server.Close()
}
