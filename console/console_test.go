package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

var (
	at     = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	remote = netip.MustParseAddrPort("192.0.2.1:5684")
)

func TestEvents(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		event dtlsserver.Event
		tell  func(*Handler, dtlsserver.Event)
		color string
		want  string
	}{
		{
			name:  "error",
			event: dtlsserver.Event{Kind: dtlsserver.KindReadFailed, Time: at, Err: errors.New("no network")},
			tell:  (*Handler).Error,
			color: "\x1b[38;2;220;20;60m",
			want:  "03:04:05.678 error   reading the socket failed: no network",
		},
		{
			name:  "warning",
			event: dtlsserver.Event{Kind: dtlsserver.KindUnknownPSKIdentity, Time: at, Remote: remote, Identity: "me\x1b[2J"},
			tell:  (*Handler).Warning,
			color: "\x1b[38;2;255;140;0m",
			want:  `03:04:05.678 warning 192.0.2.1:5684: unknown PSK identity, identity "me\x1b[2J"`,
		},
		{
			name:  "info",
			event: dtlsserver.Event{Kind: dtlsserver.KindHelloVerified, Time: at, Remote: remote},
			tell:  (*Handler).Info,
			color: "\x1b[38;2;0;0;139m",
			want:  "03:04:05.678 info    192.0.2.1:5684: verified, starting a handshake",
		},
		{
			name:  "hostile error text",
			event: dtlsserver.Event{Kind: dtlsserver.KindPSKFailed, Time: at, Err: errors.New("no \x1b]0;title\a\r\nin \x9b2J \xff")},
			tell:  (*Handler).Error,
			color: "\x1b[38;2;220;20;60m",
			want:  `03:04:05.678 error   looking up the pre-shared key failed: no \x1b]0;title\a\r\nin \x9b2J \xff`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var plain, colored bytes.Buffer
			test.tell(newHandler(&plain, false), test.event)
			wantText(t, plain.String(), test.want+"\n")
			test.tell(newHandler(&colored, true), test.event)
			wantText(t, colored.String(), test.color+test.want+"\x1b[0m\n")
		})
	}
}

func TestDatagramReceived(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name               string
		cipherText         []byte
		plainText          []byte
		wantText, wantHexa string
	}{
		{"text", []byte{0x17, 0xfe, 0xfd}, []byte("hello"), `"hello"`, "record of 3 bytes: 17fefd"},
		{"empty", []byte{0x17}, nil, `""`, "record of 1 bytes: 17"},
		{
			"hostile", []byte{0x17}, []byte("\x1b[2J\n\x9b \xff \u202e \"quoted\""),
			`"\x1b[2J\n\x9b \xff \u202e \"quoted\""`, "record of 1 bytes: 17",
		},
		{
			"long", bytes.Repeat([]byte{0xab}, 65), bytes.Repeat([]byte{'x'}, 257),
			`"` + strings.Repeat("x", 256) + `"… (257 bytes)`,
			"record of 65 bytes: " + strings.Repeat("ab", 64) + "…",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			session := new(dtlsserver.Session)
			const indent = len("03:04:05.678 ")

			var plain bytes.Buffer
			newHandler(&plain, false).DatagramReceived(session, test.cipherText, test.plainText)
			first, second := twoLines(t, plain.String())
			wantText(t, first[indent:], "message invalid AddrPort: "+test.wantText)
			wantText(t, second, strings.Repeat(" ", indent)+test.wantHexa)

			const magenta, end = "\x1b[38;2;139;0;139m", "\x1b[0m"
			var colored bytes.Buffer
			newHandler(&colored, true).DatagramReceived(session, test.cipherText, test.plainText)
			for line := range strings.Lines(colored.String()) {
				inner, ok := strings.CutPrefix(line, magenta)
				inner, ok2 := strings.CutSuffix(inner, end+"\n")
				if !ok || !ok2 || strings.ContainsRune(inner, '\x1b') {
					t.Errorf("line %q is not in dark magenta alone", line)
				}
			}
		})
	}
}

func TestPrintf(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	newHandler(&b, true).Printf("%d. %s", 1, "step")
	wantText(t, b.String(), "1. step\n")
}

// Whole lines must come out, whoever writes at the same time.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	c := newHandler(&b, true)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 50 {
				c.Info(dtlsserver.Event{Kind: dtlsserver.KindListening, Time: at})
				c.Printf("own line %d", i)
			}
		})
	}
	group.Wait()
	lines := 0
	for line := range strings.Lines(b.String()) {
		lines++
		event := strings.HasPrefix(line, darkBlue) && strings.HasSuffix(line, reset+"\n")
		if !event && !strings.HasPrefix(line, "own line ") {
			t.Fatalf("torn line %q", line)
		}
	}
	wantText(t, fmt.Sprint(lines), "800")
}

func TestColorByDefault(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	wantsColor := func(w io.Writer) bool {
		t.Helper()
		return New(w).color.Load()
	}
	if wantsColor(new(bytes.Buffer)) {
		t.Error("a buffer wants colour")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if wantsColor(file) {
		t.Error("a regular file wants colour")
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if !wantsColor(null) {
		t.Error("a character device wants no colour")
	}
	t.Setenv("NO_COLOR", "1")
	if wantsColor(null) {
		t.Error("colour in spite of NO_COLOR")
	}
}

// newHandler returns a Handler with colours or without.
func newHandler(w io.Writer, color bool) *Handler {
	h := New(w)
	h.SetColor(color)
	return h
}

func twoLines(t *testing.T, s string) (first, second string) {
	t.Helper()
	first, second, _ = strings.Cut(s, "\n")
	second, ok := strings.CutSuffix(second, "\n")
	if !ok || strings.Contains(second, "\n") {
		t.Fatalf("not two lines: %q", s)
	}
	return first, second
}

func wantText(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
