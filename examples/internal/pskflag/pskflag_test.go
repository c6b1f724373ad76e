package pskflag

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for value, want := range map[string][2]string{
		Default:     {"Client_identity", "1a2b3c4d5e6f"},
		"a=b==00FF": {"a=b=", "00ff"},
		"=01":       {"", "01"},
	} {
		identity, key, err := Parse(value)
		if err != nil || identity != want[0] || hex.EncodeToString(key) != want[1] {
			t.Errorf("Parse(%q) = %q, %x, %v, want %q", value, identity, key, err, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, value := range []string{"", "secret", "me=", "me=secret", "me=012", "c2VjcmV0=="} {
		_, _, err := Parse(value)
		if err == nil {
			t.Errorf("Parse(%q) has no error", value)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "012") {
			t.Errorf("Parse(%q) shows the key: %v", value, err)
		}
	}
}
