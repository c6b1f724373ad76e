package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Who may do what:
//
//   - Other machines reach nothing: the page is served on loopback.
//   - Sites whose name was made to point to this machine (DNS rebinding) are
//     refused by the Host that browsers then send.
//   - Other sites in the same browser are refused by http.CrossOriginProtection,
//     and do not know the token.
//   - Other users of this machine get the page, which has nothing in it, and
//     without the token nothing else.
//   - Peers can only send bytes, which the page shows as text; if it did not,
//     the policy would still run no script but the page's own.

// guard refuses what does not come from the page, and sends the security
// headers.
func guard(next http.Handler) http.Handler {
	next = http.NewCrossOriginProtection().Handler(next)
	policy := contentPolicy(page)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !isLoopback(r.Host) {
			http.Error(w, "this page is for this machine only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// authorized refuses who does not know the token. It stands in a header, which
// other sites cannot set, or for EventSource, which cannot set headers either,
// in the query.
func (c *webConsole) authorized(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.Header.Get("X-Token")
		if r.Method == http.MethodGet {
			token = r.URL.Query().Get("token")
		}
		if subtle.ConstantTimeCompare([]byte(token), []byte(c.token)) != 1 {
			http.Error(w, "open the address that the program has printed", http.StatusForbidden)
			return
		}
		next(w, r)
	})
}

// contentPolicy allows the one script and the one style sheet of an HTML page,
// and to connect to where the page is from. Scripts cannot make HTML of text.
func contentPolicy(html string) string {
	return "default-src 'none'; script-src " + hashOf(html, "script") + "; style-src " + hashOf(html, "style") +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" +
		"; require-trusted-types-for 'script'; trusted-types 'none'"
}

// hashOf returns the source expression for what stands in the element.
func hashOf(html, element string) string {
	_, rest, _ := strings.Cut(html, "<"+element+">")
	content, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// isLoopback reports whether the host of an address, which may have a port, is
// this machine by name or number.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
