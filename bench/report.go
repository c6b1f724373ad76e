//go:build linux

package main

// The report, in Markdown.

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// progress tells on standard error that a result is there.
func progress(r *result) {
	if r.err != nil {
		fmt.Fprintf(os.Stderr, "%-12s %-13s %s\n", r.mode, r.server, firstLine(r.err))
		return
	}
	text := strings.Join(r.notes, "; ")
	switch {
	case r.idle != nil:
		text = strings.Join(append([]string{r.idle.cells()}, r.notes...), "; ")
	case r.mixed != nil:
		text = strings.Join(append([]string{r.mixed.cells()}, r.notes...), "; ")
	default:
		s := r.median()
		var all []string
		for _, s := range r.samples {
			all = append(all, fmt.Sprintf("%.2f", s.micros()))
		}
		text = fmt.Sprintf("%7.2f us (%s), core %3.0f %%, others %3.0f %%, %7.0f/s  %s", s.micros(), strings.Join(all, " "),
			100*s.utilisation(), 100*s.share(s.usage.others), float64(s.operations)/s.wall.Seconds(), text)
	}
	fmt.Fprintf(os.Stderr, "%-12s %-13s %s\n", r.mode, r.server, text)
}

// progressRow tells on standard error that a row of a comparison is there.
func progressRow(c *comparison) { fmt.Fprintln(os.Stderr, c.cells()) }

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// find returns the result of a mode and server, or nil.
func (b *bench) find(mode, server string) *result {
	i := slices.IndexFunc(b.results, func(r *result) bool { return r.mode == mode && r.server == server })
	if i < 0 {
		return nil
	}
	return b.results[i]
}

// report prints everything.
func (b *bench) report(w io.Writer) {
	b.facts(w)
	b.costs(w)
	b.growth(w)
	b.idleTable(w)
	b.mixedTable(w)
	b.ratios(w)
	b.details(w)
}

// table prints a section with a table, unless it has no rows.
func table(w io.Writer, title, header string, rows []string) {
	if len(rows) == 0 {
		return
	}
	columns := strings.Count(header, " | ") + 1
	fmt.Fprintf(w, "\n### %s\n\n| %s |\n|%s\n", title, header, strings.Repeat("---|", columns))
	for _, row := range rows {
		fmt.Fprintf(w, "| %s |\n", row)
	}
}

// costs prints the CPU time an operation, a column a server.
func (b *bench) costs(w io.Writer) {
	var rows []string
	for _, m := range modes {
		if !slices.ContainsFunc(b.results, func(r *result) bool { return r.mode == m.name && len(r.samples) > 0 }) {
			continue
		}
		row := m.what
		for _, server := range b.servers {
			row += " | " + b.find(m.name, server).cost()
		}
		rows = append(rows, row)
	}
	table(w, "CPU time of the server process an operation, in us", "operation | "+strings.Join(b.servers, " | "), rows)
}

// cost is the cell of a result, which may be nil.
func (r *result) cost() string {
	switch {
	case r == nil:
		return ""
	case r.err != nil:
		return "failed"
	case r.median().operations == 0:
		return "none"
	}
	return fmt.Sprintf("%.2f", r.median().micros())
}

// growth prints how an echo's cost and a session's memory change with the
// number of sessions.
func (b *bench) growth(w io.Writer) {
	var rows []string
	for _, server := range b.servers {
		for _, m := range modes {
			r := b.find(m.name, server)
			if m.size != 64 || r == nil || r.err != nil || isPlain(server) {
				continue
			}
			memory := ""
			if r.perSession > 0 {
				memory = fmt.Sprintf("%.2f", r.perSession)
			}
			rows = append(rows, fmt.Sprintf("%s | %d | %s | %s", server, min(m.sessions, b.sessions), r.cost(), memory))
		}
	}
	table(w, "Echoes of 64 B by the number of sessions", "server | sessions | CPU us an echo | KiB resident a session", rows)
}

func (b *bench) idleTable(w io.Writer) {
	var rows []string
	for _, r := range b.results {
		if r.idle != nil {
			rows = append(rows, r.server+" | "+r.idle.cells())
		}
	}
	table(w, "Idle sessions", fmt.Sprintf("server | sessions | KiB resident a session at once | after %v | goroutines | "+
		"CPU while idle | closing all", b.quiet), rows)
}

func (i *idleResult) cells() string {
	return fmt.Sprintf("%d | %.2f | %.2f | %d | %.2f %% | %v, %v CPU", i.sessions, i.fresh, i.later, i.goroutines,
		100*i.cpu, i.closing.wall.Round(time.Millisecond), i.closing.usage.cpu.Round(time.Millisecond))
}

func (b *bench) mixedTable(w io.Writer) {
	var rows []string
	for _, r := range b.results {
		if r.mixed != nil {
			rows = append(rows, r.server+" | "+r.mixed.cells())
		}
	}
	table(w, fmt.Sprintf("Honest PSK handshakes, %d a second, among %d spoofed hellos a second", honestRate, floodRate),
		"server | hellos a second | honest | succeeded | median | 99th percentile | core used | B resident a hello", rows)
}

func (m *mixedResult) cells() string {
	return fmt.Sprintf("%.0f | %d | %.1f %% | %v | %v | %.0f %% | %.0f", m.flood, m.honest,
		100*float64(len(m.latencies))/float64(max(1, m.honest)), m.percentile(50).Round(10*time.Microsecond),
		m.percentile(99).Round(10*time.Microsecond), 100*m.cpu, m.growth)
}

// ratios prints what the project demands of itself.
func (b *bench) ratios(w io.Writer) {
	var rows []string
	cost := func(mode, server string) float64 {
		if r := b.find(mode, server); r != nil && r.err == nil {
			return r.median().micros()
		}
		return 0
	}
	add := func(what string, value, atMost float64) {
		rows = append(rows, fmt.Sprintf("%s | %.2f | %.2f", what, value, atMost))
	}
	ratio := func(what string, ours, other, atMost float64) {
		if ours > 0 && other > 0 {
			add(what, ours/other, atMost)
		}
	}
	ratio("PSK handshake: ours / GnuTLS", cost("psk", "ours"), cost("psk", "gnutls"), 0.7)
	ratio("PSK handshake: ours / pion v3", cost("psk", "ours"), cost("psk", "pion3"), 0.25)
	ratio("ECDHE-ECDSA handshake: ours / GnuTLS", cost("ecdsa", "ours"), cost("ecdsa", "gnutls"), 0.6)
	for _, m := range modes {
		if m.sessions == 0 {
			continue
		}
		if floor := cost(m.name, "echo-batched"); floor > 0 {
			ratio(m.what+": ours / (batched UDP echo + AEAD)", cost(m.name, "ours"), floor+b.primitives.echo(m.size), 1.3)
		}
		ratio(m.what+": ours / GnuTLS", cost(m.name, "ours"), cost(m.name, "gnutls"), 1)
	}
	ratio("hello: ours / batched UDP echo", cost("hello", "ours"), cost("hello", "echo-batched"), 1.2)
	if r := b.find("idle", "ours"); r != nil && r.idle != nil {
		add("KiB resident an idle session", r.idle.later, 2)
	}
	if r := b.find("mixed", "ours"); r != nil && r.mixed != nil {
		add("99th percentile of honest handshakes among spoofed hellos, ms", r.mixed.percentile(99).Seconds()*1000, 100)
	}
	table(w, "Ratios", "what | measured | at most", rows)
}

// details prints each result with what it takes to judge it.
func (b *bench) details(w io.Writer) {
	var rows []string
	for _, r := range b.results {
		notes := strings.Join(r.notes, "; ")
		if r.err != nil {
			notes = firstLine(r.err)
		}
		begin := r.mode + " | " + r.server
		if len(r.samples) > 0 {
			s, m := r.sorted(), r.median()
			rows = append(rows, fmt.Sprintf("%s | %.2f | %.2f | %.2f | %.0f %% | %.0f %% | %.0f %% | %.0f %% | %.0f | %s", begin,
				m.micros(), s[0].micros(), s[len(s)-1].micros(), 100*m.utilisation(), 100*m.share(m.usage.user),
				100*m.share(m.usage.system), 100*m.share(m.usage.others), float64(m.operations)/m.wall.Seconds(), notes))
		} else if notes != "" {
			rows = append(rows, begin+" | | | | | | | | | "+notes)
		}
	}
	table(w, "Details", "mode | server | us median | least | most | core used | user | system | others | a second | notes", rows)
}

// facts prints what the run depends on.
func (b *bench) facts(w io.Writer) {
	fmt.Fprintf(w, "    %s\n\n", strings.Join(append([]string{"bench"}, os.Args[1:]...), " "))
	fact := func(name, format string, args ...any) {
		fmt.Fprintf(w, "| %s | %s |\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(w, "| | |\n|---|---|\n")
	fact("time", "%s", time.Now().UTC().Format("2006-01-02 15:04 MST"))
	fact("processor", "%s, %d cores; server on core %s, load on core %s", processor(), cores(), cpuName(b.cpu), cpuName(b.loadCPU))
	fact("kernel", "%s", kernel())
	fact("Go", "%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if strings.HasPrefix(m.Path, "github.com/pion/dtls/") {
				fact(m.Path, "%s", m.Version)
			}
		}
	}
	for _, server := range b.servers {
		if err := b.cErrors[server]; err != nil {
			fact(server, "not built: %s", firstLine(err))
		} else if version := b.versions[server]; version != "" {
			fact(server, "%s", version)
		}
	}
	fact("socket buffers", "asked for %d B; the load was given %d to receive and %d to send, as Linux counts them; rmem_max %s, wmem_max %s",
		socketBuffer, b.received, b.sent, sysctl("rmem_max"), sysctl("wmem_max"))
	p := b.primitives
	fact("samples", "%d of %v each, after a warming up of half a sample", b.repetitions, b.sampleTime())
	fact("CPU time of AES-128-GCM, seal and open", "64 B %.2f us, 1 KiB %.2f us", p.echo(64), p.echo(1024))
	fact("CPU time of HMAC-SHA-256 of 100 B", "%.2f us", p.hmac.Seconds()*1e6)
	fact("CPU time of a UDP datagram of 64 B sent and received", "%.2f us", p.datagram.Seconds()*1e6)
}

func cpuName(cpu int) string {
	if cpu < 0 {
		return "any"
	}
	return fmt.Sprint(cpu)
}

func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// cores is how many cores there are, not only those that this process may use.
func cores() int {
	info, _ := os.ReadFile("/proc/stat")
	n := 0
	for line := range strings.Lines(string(info)) {
		if strings.HasPrefix(line, "cpu") && !strings.HasPrefix(line, "cpu ") {
			n++
		}
	}
	return n
}

func kernel() string {
	version, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return "Linux " + strings.TrimSpace(string(version))
}

func sysctl(name string) string {
	value, _ := os.ReadFile("/proc/sys/net/core/" + name)
	return strings.TrimSpace(string(value))
}
