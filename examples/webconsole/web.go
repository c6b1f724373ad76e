package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// frame is the least time between two batches, about what an eye can tell
	// apart.
	frame = 50 * time.Millisecond
	// sendTimeout is how long a browser may take nothing before it is let go.
	// It comes back by itself.
	sendTimeout = 10 * time.Second
	// maxForm is the length of a form in bytes: a record, percent-encoded.
	maxForm = 64 << 10
)

//go:embed page.html
var page string

// routes returns the handler of all that browsers ask for.
func (c *webConsole) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, page)
	})
	mux.Handle("GET /events", c.authorized(c.stream))
	mux.Handle("POST /listen", c.authorized(action(func(r *http.Request) error {
		return c.listen(r.PostFormValue("address"))
	})))
	mux.Handle("POST /stop", c.authorized(action(func(*http.Request) error {
		return c.server.Close()
	})))
	mux.Handle("POST /send", c.authorized(action(func(r *http.Request) error {
		return c.send(r.PostFormValue("peer"), r.PostFormValue("text"))
	})))
	return guard(mux)
}

// action returns the handler of a form. What is wrong is answered as text.
func action(do func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := do(r); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// stream tells a browser what happened and what happens, as server-sent
// events, from where it left off: a browser that reconnects says how much it
// has got.
func (c *webConsole) stream(w http.ResponseWriter, r *http.Request) {
	news, leave, ok := c.hub.join()
	if !ok {
		http.Error(w, "too many browsers", http.StatusServiceUnavailable)
		return
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // the request has been read
	_, _ = io.WriteString(w, "retry: 1000\n\n")
	told := parseCursor(r.Header.Get("Last-Event-ID"))
	for {
		batch, next := c.hub.after(told)
		batch.Listening = c.address()
		data, err := json.Marshal(batch)
		if err != nil {
			return
		}
		_ = control.SetWriteDeadline(time.Now().Add(sendTimeout))
		fmt.Fprintf(w, "id: %v\ndata: %s\n\n", next, data)
		if err := control.Flush(); err != nil {
			return
		}
		told = next

		select {
		case <-r.Context().Done():
			return
		case <-time.After(frame):
		}
		select {
		case <-r.Context().Done():
			return
		case <-news:
		}
	}
}
