package main

import (
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// TestBrowser: the page in Chromium, with a client that runs.
func TestBrowser(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	chromium := startChromium(t)
	client := s.dial()
	peer := client.LocalAddr().String()
	ack := "to " + peer + ": ACK"
	if _, err := client.Write([]byte("before the browser came")); err != nil {
		t.Fatal(err)
	}
	wantRead(t, client, ack)
	s.sample()

	page := chromium.open(s.web.URL + "/#" + s.token)
	const has = `((pane, part) => [...document.querySelectorAll(pane + " .row")].some(row => row.innerText.includes(part)))`
	page.want("the past", has+`("#events", "handshake complete") && `+has+`("#messages", "before the browser came")`)
	page.want("the state", `document.getElementById("state").textContent === "listening on `+s.address()+`"`)
	s.sample()
	page.want("figures", `[...document.querySelectorAll(".figure .value")].map(e => e.textContent).slice(0, 3).join() === "1,1,1" &&
		!/NaN|undefined/.test(document.querySelector(".figures").innerText)`)
	page.want("charts", `[...document.querySelectorAll(".figure path")].every(e => /^M\d+/.test(e.getAttribute("d")))`)

	// What happens now, as text.
	const hostile = `<script>window.ran = true</script><img src=x onerror="window.ran = true">`
	if _, err := client.Write([]byte(hostile)); err != nil {
		t.Fatal(err)
	}
	wantRead(t, client, ack)
	page.want("the script as text", has+`("#messages", `+strconv.Quote(hostile)+`)`)
	page.want("no script run", `window.ran === undefined && !document.querySelector(".row script, .row img")`)
	page.want("peer and datagram", `(row => row.querySelector(".peer").textContent === "`+peer+`" &&
		row.querySelector(".hex").textContent.startsWith("17fefd0001"))(document.querySelector("#messages .row:last-child"))`)
	page.want("HTML made of text refused", `(() => { try { document.body.innerHTML = "x"; return false } catch (e) { return e instanceof TypeError } })()`)

	// The colours.
	s.Error(dtlsserver.Event{Kind: dtlsserver.KindReadFailed, Time: time.Now(), Err: io.ErrUnexpectedEOF})
	s.Warning(dtlsserver.Event{Kind: dtlsserver.KindUnexpectedDatagram, Time: time.Now()})
	for row, color := range map[string]string{
		"#events .error":     "rgb(220, 20, 60)",
		"#events .info":      "rgb(0, 0, 139)",
		"#messages .message": "rgb(139, 0, 139)",
	} {
		page.want(row+" in its colour", `(row => row && getComputedStyle(row).color === "`+color+`")(document.querySelector("`+row+`"))`)
	}
	page.want("warnings in dark orange", `(row => row && getComputedStyle(row).borderLeftColor === "rgb(255, 140, 0)")(document.querySelector("#events .warning"))`)

	// Panes follow what happens unless they are scrolled away from it.
	for range keep {
		s.Info(dtlsserver.Event{Kind: dtlsserver.KindUnexpectedDatagram, Time: time.Now()})
	}
	s.Info(dtlsserver.Event{Kind: dtlsserver.KindEntropyFailed, Time: time.Now()})
	page.want("the latest event in sight", has+`("#events", "no random bytes") && atEnd(document.getElementById("events"))`)
	page.do(`document.getElementById("events").scrollTop = 0`)
	page.want("a button that leads back", `!document.querySelector(".latest").hidden`)
	s.Info(dtlsserver.Event{Kind: dtlsserver.KindAlertReceived, Time: time.Now()})
	page.want("a pane that stays", has+`("#events", "alert received") && document.getElementById("events").scrollTop === 0`)
	page.do(`document.querySelector(".latest").click()`)
	page.want("the latest event in sight again", `atEnd(document.getElementById("events")) && document.querySelector(".latest").hidden`)

	// The form.
	page.do(`document.querySelector("#messages .peer").click();
		document.getElementById("text").value = "from the page <b>";
		document.querySelector("#send button").click()`)
	wantRead(t, client, "from the page <b>")
	page.want("what was sent", has+`("#messages", "to `+peer+` from the page <b>")`)

	// A connection that breaks: nothing comes twice, nothing is missing.
	s.web.CloseClientConnections()
	s.putMessageText("while the browser was away")
	page.want("the browser back", has+`("#messages", "while the browser was away")`)
	page.want("each message once", `document.querySelectorAll("#messages .row").length === 4`)

	// Stop and start.
	before := s.address()
	page.do(`document.getElementById("stop").click()`)
	page.want("the server stopped", `document.getElementById("state").textContent === "not listening" && `+has+`("#events", "stopped listening on `+before+`")`)
	if s.server.IsListening() {
		t.Error("the server listens after the stop")
	}
	_ = client.SetReadDeadline(time.Now().Add(patience))
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads %v after the stop, want EOF", err)
	}
	page.do(`document.getElementById("address").value = "127.0.0.1:nonsense";
		document.getElementById("address").dispatchEvent(new Event("input"));
		document.getElementById("start").click()`)
	page.want("the reason why it does not start", `document.getElementById("note").textContent.includes("nonsense")`)
	page.do(`document.getElementById("address").value = "127.0.0.1:0"; document.getElementById("start").click()`)
	page.want("the server started", `document.getElementById("state").textContent.startsWith("listening on 127.0.0.1:")`)
	if client := s.dial(); client != nil {
		if _, err := client.Write([]byte("after the start")); err != nil {
			t.Fatal(err)
		}
	}
	page.want("a message after the start", has+`("#messages", "after the start")`)

	// Others.
	stranger := chromium.open(s.web.URL + "/#guess")
	stranger.want("no stream without the token", `document.getElementById("link").textContent.startsWith("refused") && !document.querySelector(".row")`)
	rebound := chromium.open("http://rebound.example:" + s.web.URL[len("http://127.0.0.1:"):] + "/#" + s.token)
	rebound.want("no page by another name", `document.body.innerText.includes("this machine only")`)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "another site")
	}))
	defer other.Close()
	evil := chromium.open(other.URL)
	evil.do(`Promise.allSettled([
		fetch("` + s.web.URL + `/stop", {method: "POST", mode: "no-cors"}),
		fetch("` + s.web.URL + `/stop", {method: "POST", headers: {"X-Token": "` + s.token + `"}}),
	])`)
	evil.want("no stream for another site", `new Promise(done => {
		const source = new EventSource("`+s.web.URL+`/events?token=`+s.token+`");
		source.onmessage = () => done(false);
		source.onerror = () => done(true);
	})`)
	if !s.server.IsListening() {
		t.Error("another site has stopped the server")
	}
}

var (
	pictureOf = flag.String("picture-of", "", "let TestPicture show the page at this `address`, which a running webconsole has printed")
	pictureIn = flag.String("picture-in", "webconsole.png", "write TestPicture's picture to this `file`")
	dark      = flag.Bool("dark", false, "let TestPicture's picture be dark")
)

// TestPicture makes the picture in README.md, of a page with -demo that has run
// for two minutes.
func TestPicture(t *testing.T) {
	if *pictureOf == "" {
		t.Skip("no -picture-of")
	}
	page := startChromium(t).open(*pictureOf)
	if *dark {
		page.media("prefers-color-scheme", "dark")
	}
	page.want("all colours and some history", `samples.length > 60 && document.querySelector("#messages .row") &&
		[".error", ".warning", ".info"].every(level => [...document.querySelectorAll("#events .row")].slice(-12).some(row => row.matches(level)))`)
	page.screenshot(*pictureIn)
}
