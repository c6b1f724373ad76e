package printable

import "testing"

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                   "",
		`Grüße, "世界" \ .`:    `Grüße, "世界" \ .`,
		"a\tb\x00\x7f\u0085": `a\tb\x00\x7f\u0085`,
		"\xf0\x9f":           `\xf0\x9f`,
		"\ufffd":             "\ufffd",
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		most int
		want string
	}{
		{"", 3, `""`},
		{"a\x00\"", 3, `"a\x00\""`},
		{"abcd", 3, `"abc"… (4 bytes)`},
	} {
		if got := Quote([]byte(tt.in), tt.most); got != tt.want {
			t.Errorf("Quote(%q, %d) = %s, want %s", tt.in, tt.most, got, tt.want)
		}
	}
}
