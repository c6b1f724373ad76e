package dtlsservertest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeT is a test that is meant to fail.
type fakeT struct {
	testing.TB // what is not here

	mu       sync.Mutex // guards all following
	failed   bool
	text     strings.Builder
	cleanups []func()
}

// failing runs f as a test of its own, with its cleanups, and returns what it
// has said.
func failing(t *testing.T, f func(t testing.TB)) (text string, failed bool) {
	fake := &fakeT{TB: t}
	run := func(f func()) {
		done := make(chan struct{})
		go func() { // which FailNow ends
			defer close(done)
			f()
		}()
		<-done
	}
	run(func() { f(fake) })
	for _, cleanup := range slices.Backward(fake.cleanups) {
		run(cleanup)
	}
	fake.mu.Lock()
	defer fake.mu.Unlock()
	return fake.text.String(), fake.failed
}

func (f *fakeT) Helper() {}

func (f *fakeT) Cleanup(c func()) { f.cleanups = append(f.cleanups, c) }

func (f *fakeT) Failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *fakeT) Log(args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintln(&f.text, args...)
}

func (f *fakeT) Errorf(format string, args ...any) {
	f.Log(fmt.Sprintf(format, args...))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = true
}

func (f *fakeT) FailNow() {
	f.mu.Lock()
	f.failed = true
	f.mu.Unlock()
	runtime.Goexit()
}

func (f *fakeT) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	f.FailNow()
}

func (f *fakeT) Fatal(args ...any) { f.Fatalf("%s", fmt.Sprint(args...)) }
