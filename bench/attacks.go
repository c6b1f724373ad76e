//go:build linux

package main

// Attacks on our server, and how those fare who use it meanwhile. Each has two
// servers: one is left alone and then attacked, the other is sent as many
// datagrams of the same size that are dropped at once.

import (
	"context"
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// What is demanded of the server under attack.
const (
	mostEchoRatio      = 1.5 // of the medians, to that of the control
	mostHandshakeRatio = 1.2 // of the medians, to that of quiet, or
	mostHandshake      = 50 * time.Millisecond
	mostCPU            = 50 * time.Microsecond // a datagram that is no step of a handshake
	// mostHandshakeMemory is MaxHandshakeMemory's default. What a handshake or
	// session may hold beside is several times what it does.
	mostHandshakeMemory = dtlsserver.DefaultMaxHandshakeMemory
	mostOfHandshake     = 8 << 10
	mostOfSession       = 4 << 10
)

// scene is a server with its honest clients.
type scene struct {
	process *process
	victims *victims
	begun   time.Time
}

func (b *bench) clientCAFile() string { return filepath.Join(b.dir, "clients.pem") }

// newScene starts a server as an attack needs it.
func (b *bench) newScene(a *attack, clients *identity) (*scene, error) {
	o := a.server
	o.ClientCA = b.clientCAFile()
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	cmd, err := b.command("attacked")
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, attackedEnv+"="+string(text))
	p, err := start(cmd, b.cpu)
	if err != nil {
		return nil, err
	}
	s := &scene{process: p}
	if s.victims, err = newVictims(p.server, clients); err != nil {
		p.stop()
		return nil, err
	}
	if err := s.victims.openSilent(a.silent); err != nil {
		s.close()
		return nil, fmt.Errorf("honest sessions: %w", err)
	}
	s.begun = time.Now()
	return s, nil
}

// close does not wait for a server that has still much to do.
func (s *scene) close() {
	s.victims.close()
	s.process.cmd.Process.Kill()
	s.process.stop()
}

// phase is what was seen during a time.
type phase struct {
	wall        time.Duration
	cpu         time.Duration // of the server
	received    float64       // datagrams, by the server
	honest      float64       // datagrams of the honest, as they sent them
	sent, bytes float64       // by the attacker
	echoes      int
	rtts        []time.Duration // of the echoes that came
	handshakes  map[string]*handshakeTimes
	before      attackedState
	after       attackedState
	memory      memory // afterwards
}

// settling is how long traffic goes on before anybody looks.
const settling = 200 * time.Millisecond

// phase watches the server for a time, while there is traffic. Nil: none.
func (s *scene) phase(d time.Duration, kinds []kind, by *attacker, traffic func()) (p *phase, err error) {
	p = &phase{}
	if p.before, err = s.process.attackedState(); err != nil {
		return nil, err
	}
	honest := s.victims.datagrams.Load()
	used, err := s.process.usage()
	if err != nil {
		return nil, err
	}
	begun, ended := time.Now(), make(chan struct{})
	go func() {
		defer close(ended)
		if traffic != nil {
			traffic()
		}
	}()
	if traffic != nil {
		time.Sleep(settling)
	}
	stop, first, end := make(chan struct{}), 0, 0
	echoing := make(chan struct{})
	go func() {
		defer close(echoing)
		first, end = s.victims.echoes(stop)
	}()
	p.handshakes = s.victims.handshakes(d, kinds)
	close(stop)
	<-echoing
	if p.after, err = s.process.attackedState(); err != nil {
		return nil, err
	}
	now, err := s.process.usage()
	if err != nil {
		return nil, err
	}
	p.wall = time.Since(begun)
	p.honest = float64(s.victims.datagrams.Load() - honest)
	p.cpu = now.sub(used).cpu
	p.received = float64(p.after.DatagramsReceived - p.before.DatagramsReceived)
	if by != nil {
		p.sent, p.bytes = float64(by.sent.Load()), float64(by.bytes.Load())
		by.end()
	}
	<-ended
	p.rtts = s.victims.answered(first, end)
	p.echoes = end - first
	p.memory, err = s.process.memory()
	return p, err
}

// attackRow is what has come of an attack.
type attackRow struct {
	*attack
	err                      error
	quiet, control, attacked *phase
	silentLost               int
	tries                    int
}

// mostTries is how often an attack is made of which echoes alone seem slow: on a
// busy machine they may be, since control and attack have their own moments.
const mostTries = 3

// onlyEchoes reports whether the row fails, and by the time of echoes alone.
func (r *attackRow) onlyEchoes() bool {
	p := r.problems()
	return len(p) == 1 && strings.HasPrefix(p[0], slowEcho)
}

// slowEcho begins what is said of slow echoes.
const slowEcho = "echo "

// runAttacks makes the attacks, prints the table, and reports whether all rows
// pass.
func (b *bench) runAttacks(ctx context.Context, w io.Writer, chosen []*attack) (ok bool, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8)) // let the system decide who of the load runs
	ca := newAuthority("clients", elliptic.P256())
	if err := os.WriteFile(b.clientCAFile(), ca.pem(), 0o600); err != nil {
		return false, err
	}
	clients := newIdentity("an honest client", ca)
	early := make(map[*attack]*scene)
	defer func() {
		for _, s := range early {
			s.close()
		}
	}()
	for _, a := range chosen {
		if a.silentFor > 0 {
			if early[a], err = b.newScene(a, clients); err != nil {
				delete(early, a)
				return false, err
			}
		}
	}
	var rows []*attackRow
	ok = true
	for _, a := range chosen {
		if ctx.Err() != nil {
			return false, errInterrupted
		}
		s := early[a]
		delete(early, a)
		row := b.attack(ctx, a, s, clients)
		for row.tries = 1; row.tries < mostTries && row.onlyEchoes() && ctx.Err() == nil; {
			tries := row.tries + 1
			row = b.attack(ctx, a, nil, clients)
			row.tries = tries
		}
		rows = append(rows, row)
		ok = ok && len(row.problems()) == 0
		fmt.Fprintf(os.Stderr, "%-10s %s\n", a.name, row.verdict())
	}
	printAttacks(w, rows)
	return ok, nil
}

// attack makes one attack, on a server that may have been started before.
func (b *bench) attack(ctx context.Context, a *attack, s *scene, clients *identity) *attackRow {
	row := &attackRow{attack: a}
	if s == nil {
		if s, row.err = b.newScene(a, clients); row.err != nil {
			return row
		}
	}
	row.err = b.attackScene(ctx, row, s)
	s.close()
	if row.err != nil {
		return row
	}
	if s, row.err = b.newScene(&attack{server: a.server}, clients); row.err == nil {
		row.err = b.controlScene(row, s)
		s.close()
	}
	return row
}

func (r *attackRow) kinds() []kind {
	if r.fragmented {
		return append(kinds[:len(kinds):len(kinds)], fragmentedKind)
	}
	return kinds
}

// attackScene leaves the server alone and then attacks it.
func (b *bench) attackScene(ctx context.Context, row *attackRow, s *scene) (err error) {
	d := b.sampleTime()
	if _, err := s.phase(d/4, row.kinds(), nil, nil); err != nil { // warms up
		return err
	}
	if row.quiet, err = s.phase(d, row.kinds(), nil, nil); err != nil {
		return err
	}
	select {
	case <-time.After(time.Until(s.begun.Add(row.silentFor))):
	case <-ctx.Done():
		return errInterrupted
	}
	by := newAttacker(s.process.server)
	defer by.end()
	traffic, err := row.prepare(by)
	if err != nil {
		return fmt.Errorf("the attacker: %w", err)
	}
	if row.attacked, err = s.phase(d, row.kinds(), by, traffic); err != nil {
		return err
	}
	row.silentLost = len(s.victims.silent) - s.victims.silentAlive()
	return nil
}

// controlScene sends as much to another server.
func (b *bench) controlScene(row *attackRow, s *scene) (err error) {
	d := b.sampleTime()
	if _, err := s.phase(d/4, row.kinds(), nil, nil); err != nil {
		return err
	}
	by := newAttacker(s.process.server)
	defer by.end()
	traffic, err := by.control(row.attacked.sent/row.attacked.wall.Seconds(), int(row.attacked.bytes/max(1, row.attacked.sent)))
	if err != nil {
		return err
	}
	row.control, err = s.phase(d, row.kinds(), by, traffic)
	return err
}

// Few datagrams that take little cannot be told from what else the server does.
const (
	fewDatagrams = 200
	littleCPU    = 100 * time.Millisecond
)

// perDatagram is the server's CPU time for one datagram of the attacker: those
// of the honest take what they take when it is quiet. Of what comes too fast,
// the server takes the same share of both. Zero: it cannot be told.
func (p *phase) perDatagram(quiet *phase) time.Duration {
	all := max(1, p.sent+p.honest)
	theirs := p.received * p.sent / all
	cpu := p.cpu - time.Duration(float64(quiet.cpu)*p.received*p.honest/all/max(1, quiet.honest))
	if cpu <= 0 || theirs < 1 || theirs < fewDatagrams && cpu < littleCPU {
		return 0
	}
	return time.Duration(float64(cpu) / theirs)
}

// middle is the median, or zero of none.
func middle(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	var values []float64
	for _, d := range times {
		values = append(values, float64(d))
	}
	return time.Duration(median(values))
}

// worst is the longest time.
func worst(times []time.Duration) (longest time.Duration) {
	for _, d := range times {
		longest = max(longest, d)
	}
	return longest
}

func (p *phase) lost() int { return p.echoes - len(p.rtts) }

// grown is what the server holds more than when it was quiet, and the most that
// it may.
func (r *attackRow) grown() (bytes, most int64) {
	more := func(of func(*phase) int) int64 { return int64(max(0, of(r.attacked)-of(r.quiet))) }
	most = mostHandshakeMemory +
		mostOfHandshake*more(func(p *phase) int { return p.after.Handshakes }) +
		mostOfSession*more(func(p *phase) int { return p.after.Sessions })
	return r.attacked.memory.heap - r.quiet.memory.heap, most
}

// problems are why the row fails.
func (r *attackRow) problems() (problems []string) {
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if r.err != nil {
		return []string{firstLine(r.err)}
	}
	attacked, control := middle(r.attacked.rtts), middle(r.control.rtts)
	if attacked > 0 && control > 0 && attacked.Seconds() > mostEchoRatio*control.Seconds() {
		add(slowEcho+"%.1f x the control's", attacked.Seconds()/control.Seconds())
	}
	if n := r.attacked.lost(); n > 0 {
		add("%d echoes lost", n)
	}
	var slow, failed []string
	for _, k := range r.kinds() {
		quiet, attacked := r.quiet.handshakes[k.name], r.attacked.handshakes[k.name]
		q, a := middle(quiet.took), middle(attacked.took)
		switch {
		case attacked.failed > 0:
			failed = append(failed, k.name)
		case a > mostHandshake && a.Seconds() > mostHandshakeRatio*q.Seconds():
			slow = append(slow, k.name)
		}
	}
	if len(slow) > 0 {
		add("handshakes slow (%s)", strings.Join(slow, ", "))
	}
	if len(failed) > 0 {
		add("handshakes failed (%s)", strings.Join(failed, ", "))
	}
	if cost := r.attacked.perDatagram(r.quiet); r.cheap && cost > mostCPU {
		add("%v a datagram", cost.Round(time.Microsecond))
	}
	if bytes, most := r.grown(); bytes > most {
		add("memory")
	}
	if log := r.attacked.after.Log; r.longestLine > 0 {
		if n := log.Warnings - r.attacked.before.Log.Warnings; n > r.mostWarnings {
			add("%d warnings", n)
		}
		if log.Longest > r.longestLine {
			add("a line of %d bytes in the log", log.Longest)
		}
	}
	if r.silentLost > 0 {
		add("%d of %d silent sessions ended", r.silentLost, r.silent)
	}
	return problems
}

func (r *attackRow) verdict() string {
	text := string(pass)
	if p := r.problems(); len(p) > 0 {
		text = string(fail) + ": " + strings.Join(p, "; ")
	}
	if r.tries > 1 {
		text += fmt.Sprintf(" (try %d)", r.tries)
	}
	return text
}
