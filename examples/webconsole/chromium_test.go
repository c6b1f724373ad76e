package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// patience bounds what tests wait for.
const patience = 30 * time.Second

// chromium is a headless Chromium that is driven by the DevTools protocol over
// two pipes: JSON texts that end with a zero byte.
type chromium struct {
	t       *testing.T
	ctx     context.Context
	w       io.Writer
	answers chan answer
	last    int
}

type answer struct {
	ID     int
	Result json.RawMessage
	Error  *struct{ Message string }
}

// startChromium skips the test without Chromium, and fails it in CI.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no chromium")
		}
		t.Skip("there is no chromium")
	}
	dir := t.TempDir()
	args := []string{
		"--headless", "--remote-debugging-pipe", "--user-data-dir=" + dir,
		"--disable-gpu", "--disable-dev-shm-usage", "--disable-breakpad", "--disable-background-networking",
		"--no-first-run", "--no-proxy-server", "--hide-scrollbars",
		"--host-resolver-rules=MAP rebound.example 127.0.0.1",
	}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience) // it starts slowly on a busy machine
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "TMPDIR="+dir)
	// Its helpers have it too, so that Wait waits for all of them.
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = 5 * time.Second
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{theirs, theirOut} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	theirOut.Close()
	c := &chromium{t: t, ctx: ctx, w: ours, answers: make(chan answer, 1)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for r := bufio.NewReader(in); ; {
			b, err := r.ReadBytes(0)
			if err != nil {
				return
			}
			var a answer
			if json.Unmarshal(b[:len(b)-1], &a) == nil && a.ID > 0 { // others are events
				c.answers <- a
			}
		}
	}()
	t.Cleanup(func() {
		_ = ours.Close() // it ends
		_ = cmd.Wait()
		if t.Failed() {
			says := stderr.Bytes()
			t.Logf("chromium says at last:\n%s", says[max(0, len(says)-2000):])
		}
		_ = in.Close()
		<-read
	})
	return c
}

// call calls a method of the protocol; a session is a page.
func (c *chromium) call(session, method string, params, result any) error {
	c.last++
	b, err := json.Marshal(struct {
		ID        int    `json:"id"`
		Method    string `json:"method"`
		Params    any    `json:"params"`
		SessionID string `json:"sessionId,omitempty"`
	}{c.last, method, params, session})
	if err != nil {
		return err
	}
	if _, err := c.w.Write(append(b, 0)); err != nil {
		return err
	}
	select {
	case a := <-c.answers:
		if a.Error != nil {
			return fmt.Errorf("%s: %s", method, a.Error.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-c.ctx.Done():
		return fmt.Errorf("%s: %w", method, context.Cause(c.ctx))
	}
}

// tab is a page in Chromium.
type tab struct {
	*chromium
	session string
}

// open opens a page.
func (c *chromium) open(url string) *tab {
	c.t.Helper()
	var target struct{ TargetID string }
	err := c.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	if err != nil {
		c.t.Fatal(err)
	}
	var session struct{ SessionID string }
	err = c.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	if err != nil {
		c.t.Fatal(err)
	}
	p := &tab{c, session.SessionID}
	size := map[string]any{"width": 1200, "height": 800, "deviceScaleFactor": 1, "mobile": false}
	if err := p.call(p.session, "Emulation.setDeviceMetricsOverride", size, nil); err != nil {
		c.t.Fatal(err)
	}
	if err := p.call(p.session, "Page.navigate", map[string]any{"url": url}, nil); err != nil {
		c.t.Fatal(err)
	}
	p.want("the page to be loaded", `location.href !== "about:blank" && document.readyState === "complete"`)
	return p
}

// eval returns the value of an expression, or of its promise, as JSON.
func (p *tab) eval(expression string) (json.RawMessage, error) {
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	err := p.call(p.session, "Runtime.evaluate", map[string]any{
		"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true,
	}, &r)
	if err == nil && r.ExceptionDetails != nil {
		err = errors.New(r.ExceptionDetails.Text + " " + r.ExceptionDetails.Exception.Description)
	}
	return r.Result.Value, err
}

// do evaluates an expression.
func (p *tab) do(expression string) {
	p.t.Helper()
	if _, err := p.eval(expression); err != nil {
		p.t.Fatal(err)
	}
}

// want waits until a condition holds on the page.
func (p *tab) want(what, condition string) {
	p.t.Helper()
	// Asked anew when the page has gone to another meanwhile.
	for {
		value, err := p.eval(fmt.Sprintf(`new Promise(done => {
			const end = Date.now() + 20000;
			(function look() {
				Promise.resolve(%s).then(yes => {
					if (yes) done("yes");
					else if (Date.now() > end) done("it shows: " + document.body.innerText);
					else setTimeout(look, 20);
				});
			})();
		})`, condition))
		switch {
		case string(value) == `"yes"`:
			return
		case err == nil:
			var text string
			_ = json.Unmarshal(value, &text)
			p.t.Fatalf("want %s; %s", what, text)
		case p.ctx.Err() != nil:
			p.t.Fatalf("want %s: %v", what, err)
		}
		p.t.Logf("want %s: %v", what, err)
	}
}

// media sets a media feature that the page's style may ask for.
func (p *tab) media(name, value string) {
	p.t.Helper()
	features := []map[string]string{{"name": name, "value": value}}
	if err := p.call(p.session, "Emulation.setEmulatedMedia", map[string]any{"features": features}, nil); err != nil {
		p.t.Fatal(err)
	}
}

// screenshot writes a picture of the page to a file.
func (p *tab) screenshot(file string) {
	p.t.Helper()
	var picture struct{ Data []byte }
	if err := p.call(p.session, "Page.captureScreenshot", map[string]any{"format": "png"}, &picture); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Clean(file), picture.Data, 0o644); err != nil {
		p.t.Fatal(err)
	}
}
