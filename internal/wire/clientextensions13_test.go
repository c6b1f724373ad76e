// Tests of the extensions of a ClientHello as DTLS 1.3 reads them.

package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The extensions that only 1.3 has. The bytes around a length are such that a length that
// is off by one does not find another valid list by luck.
const (
	sampleShares      = "0033" + "000f" + "000d" + "001d" + "0003" + "aabbff" + "11ec" + "0002" + "ccff"
	samplePSKModes    = "002d" + "0003" + "02" + "0100"
	sampleCookie13    = "002c" + "0006" + "0004" + "c0c1c2ff"
	sampleEarlyData   = "002a" + "0000"
	sampleAuthorities = "002f" + "000c" + "000a" + "0004" + "aabbccff" + "0002" + "ddff"
	sampleIdentities  = "0003" + "a1a2ff" + "01020304" + "0002" + "b1ff" + "050607ff"
	sampleBinder1     = "b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1ff"
	sampleBinder2     = "ffb2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2ff"
	sampleBinders     = "20" + sampleBinder1 + "30" + sampleBinder2
	samplePSKs        = "0029" + "0067" + "0011" + sampleIdentities + "0052" + sampleBinders
)

func samplePSKsWant() OfferedPSKs {
	return OfferedPSKs{
		Identities: mustUnhex(sampleIdentities), Binders: mustUnhex(sampleBinders),
		IdentityCount: 2, BinderCount: 2, BindersAt: 4 + 2 + 17,
	}
}

func mustUnhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

type sample13 struct {
	name   string
	block  string
	want   ClientExtensions13
	fields []lengthField
}

// samples13 are the samples of all extensions that 1.3 reads, pre_shared_key last.
func samples13() (all []sample13) {
	only12 := []string{"max_fragment_length", "ec_point_formats", "extended_master_secret", "renegotiation_info"}
	for _, x := range sampleFields {
		if !slices.Contains(only12, x.name) {
			all = append(all, sample13{x.name, x.block, ClientExtensions13{ClientExtensions: x.want}, x.fields})
		}
	}
	extension := lengthField{"extension", 2, 2}
	return append(all,
		sample13{"key_share", sampleShares, ClientExtensions13{KeyShares: mustUnhex(sampleShares[12:])},
			[]lengthField{extension, {"list", 4, 2}, {"first", 8, 2}, {"last", 15, 2}}},
		sample13{"psk_key_exchange_modes", samplePSKModes, ClientExtensions13{PSKModes: []byte{1, 0}},
			[]lengthField{extension, {"list", 4, 1}}},
		sample13{"cookie", sampleCookie13, ClientExtensions13{Cookie: []byte{0xc0, 0xc1, 0xc2, 0xff}},
			[]lengthField{extension, {"cookie", 4, 2}}},
		sample13{"early_data", sampleEarlyData, ClientExtensions13{EarlyData: true}, []lengthField{extension}},
		sample13{"certificate_authorities", sampleAuthorities, ClientExtensions13{CertificateAuthorities: mustUnhex(sampleAuthorities[12:])},
			[]lengthField{extension, {"list", 4, 2}, {"first", 6, 2}, {"last", 12, 2}}},
		sample13{"pre_shared_key", samplePSKs, ClientExtensions13{PSKs: samplePSKsWant()},
			[]lengthField{extension, {"identities", 4, 2}, {"first identity", 6, 2}, {"last identity", 15, 2},
				{"binders", 23, 2}, {"first binder", 25, 1}, {"last binder", 58, 1}}})
}

func allSamples13() (block string) {
	for _, x := range samples13() {
		block += x.block
	}
	return block
}

// only13 are the samples of the extensions that only 1.3 has.
func only13() []sample13 {
	all := samples13()
	return all[slices.IndexFunc(all, func(x sample13) bool { return x.name == "key_share" }):]
}

// TestClientExtensions13All reads all extensions, with unknown ones and those of 1.2 among
// them.
func TestClientExtensions13All(t *testing.T) {
	t.Parallel()
	front := allSamples() + sampleUnknown
	block := unhex(t, front+sampleShares+samplePSKModes+sampleCookie13+sampleEarlyData+sampleAuthorities+samplePSKs)
	e, ok := ParseClientExtensions13(block)
	if !ok || e.Duplicate || e.DuplicateShare || e.PSKNotLast {
		t.Fatalf("got %+v, %v", e, ok)
	}
	shared := sampleWant()
	shared.MaxFragmentLength, shared.ECPointFormats, shared.ExtendedMasterSecret = 0, nil, false
	shared.RenegotiationInfo, shared.RenegotiatedInfo = false, nil
	wantSameExtensions(t, e.ClientExtensions, shared)

	shares := slices.Collect(e.KeyShares.All())
	if want := []KeyShare{{0x001d, unhex(t, "aabbff")}, {0x11ec, unhex(t, "ccff")}}; !reflect.DeepEqual(shares, want) {
		t.Errorf("key shares %+v, want %+v", shares, want)
	}
	wantBytes(t, "key of a group", e.KeyShares.Key(0x11ec), unhex(t, "ccff"))
	if key := e.KeyShares.Key(0x0017); key != nil {
		t.Errorf("key %x of a group without", key)
	}
	var psks []OfferedPSK
	for i, p := range e.PSKs.All() {
		if i != len(psks) {
			t.Errorf("PSK %d has index %d", len(psks), i)
		}
		psks = append(psks, p)
	}
	if want := []OfferedPSK{
		{unhex(t, "a1a2ff"), 0x01020304, unhex(t, sampleBinder1)},
		{unhex(t, "b1ff"), 0x050607ff, unhex(t, sampleBinder2)},
	}; !reflect.DeepEqual(psks, want) {
		t.Errorf("PSKs %+v\nwant %+v", psks, want)
	}
	wantBytes(t, "binders with their length", block[e.PSKs.BindersAt:], unhex(t, "0052"+sampleBinders))
	if !e.EarlyData {
		t.Error("early_data was not seen")
	}
	wantBytes(t, "modes", e.PSKModes, []byte{1, 0})
	wantBytes(t, "cookie", e.Cookie, unhex(t, "c0c1c2ff"))
	wantBytes(t, "certificate_authorities", e.CertificateAuthorities, unhex(t, "0004aabbccff0002ddff"))
}

// TestClientExtensions13Each reads each sample alone, behind, in front of and around every
// other one.
func TestClientExtensions13Each(t *testing.T) {
	t.Parallel()
	samples := samples13()
	for i, x := range samples {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			got, ok := ParseClientExtensions13(unhex(t, x.block))
			if !ok || !reflect.DeepEqual(got, x.want) {
				t.Fatalf("got %+v, %v\nwant %+v", got, ok, x.want)
			}
			for j, y := range samples {
				got, ok := ParseClientExtensions13(unhex(t, x.block+y.block))
				if !ok || got.Duplicate != (i == j) || got.PSKNotLast != (x.name == "pre_shared_key") {
					t.Errorf("in front of %s: %+v, %v", y.name, got, ok)
				}
				got, ok = ParseClientExtensions13(unhex(t, x.block+y.block+x.block))
				if notLast := x.name == "pre_shared_key" || y.name == "pre_shared_key"; !ok || !got.Duplicate || got.PSKNotLast != notLast {
					t.Errorf("around %s: %+v, %v", y.name, got, ok)
				}
			}
		})
	}
}

// TestClientExtensions13Lengths moves every length field by one, of each sample alone and
// in a block of all, and cuts each sample's content.
func TestClientExtensions13Lengths(t *testing.T) {
	t.Parallel()
	all := allSamples13()
	next := 0
	for _, x := range samples13() {
		start := next
		next += len(x.block) / 2
		for _, field := range x.fields {
			for _, by := range []int{-1, +1} {
				t.Run(fmt.Sprintf("%s/%s%+d", x.name, field.name, by), func(t *testing.T) {
					t.Parallel()
					b := unhex(t, x.block)
					field.move(b, by)
					if e, ok := ParseClientExtensions13(b); ok || !reflect.DeepEqual(e, ClientExtensions13{}) {
						t.Errorf("alone it parses: %+v", e)
					}
					b = unhex(t, all)
					field.move(b[start:], by)
					if e, ok := ParseClientExtensions13(b); ok {
						t.Errorf("parses: %+v", e)
					}
				})
			}
		}
		t.Run(x.name+"/truncated", func(t *testing.T) {
			t.Parallel()
			block := unhex(t, x.block)
			for n := range len(block) {
				if _, ok := ParseClientExtensions13(block[:n]); ok != (n == 0) {
					t.Errorf("the first %d bytes: ok = %v", n, ok)
				}
				if n < 4 {
					continue
				}
				if e, ok := ParseClientExtensions13(append(cutExtension(block, n), unhex(t, sampleUnknown)...)); ok {
					t.Errorf("the first %d bytes, said to be all, parse: %+v", n, e)
				}
			}
		})
	}
}

// cutExtension returns the first n bytes of an extension, whose length says so.
func cutExtension(extension []byte, n int) []byte {
	cut := bytes.Clone(extension[:n])
	binary.BigEndian.PutUint16(cut[2:], uint16(n-4))
	return cut
}

// TestClientExtensionsOf12: what only 1.3 knows does not concern 1.2, however malformed, and
// the other way round.
func TestClientExtensionsOf12(t *testing.T) {
	t.Parallel()
	for _, x := range only13() {
		block := unhex(t, x.block)
		for n := 4; n <= len(block); n++ {
			e, ok := ParseClientExtensions(append(cutExtension(block, n), unhex(t, allSamples())...))
			if !ok {
				t.Fatalf("1.2 minds %d bytes of %s", n, x.name)
			}
			wantSameExtensions(t, e, sampleWant())
		}
	}
	for _, malformed := range []string{
		"0001" + "0002" + "0102", "000b" + "0001" + "00", "0017" + "0001" + "00", "ff01" + "0000",
	} {
		if _, ok := ParseClientExtensions(unhex(t, malformed)); ok {
			t.Errorf("1.2 does not mind %s", malformed)
		}
		if e, ok := ParseClientExtensions13(unhex(t, malformed)); !ok || !reflect.DeepEqual(e, ClientExtensions13{}) {
			t.Errorf("1.3 reads %s as %+v, %v", malformed, e, ok)
		}
	}
}

func TestClientExtensions13Forms(t *testing.T) {
	t.Parallel()
	list := func(id, content string) string {
		return fmt.Sprintf("%s%04x%04x%s", id, 2+len(content)/2, len(content)/2, content)
	}
	psks := func(identities, binders string) string {
		return fmt.Sprintf("0029%04x%04x%s%04x%s", 4+len(identities+binders)/2, len(identities)/2, identities, len(binders)/2, binders)
	}
	const identity, binder = "0001" + "a1" + "00000000", "20" + sampleBinder1
	tests := []struct {
		name, block string
		bad         bool
		check       func(e *ClientExtensions13) bool
	}{
		{name: "none", check: func(e *ClientExtensions13) bool { return reflect.DeepEqual(*e, ClientExtensions13{}) }},
		{name: "no shares", block: list("0033", ""), check: func(e *ClientExtensions13) bool { return e.KeyShares != nil && len(e.KeyShares) == 0 }},
		{name: "key_share without content", block: "0033" + "0000", bad: true},
		{name: "empty key", block: list("0033", "001d"+"0000"), bad: true},
		{name: "group only", block: list("0033", "001d"), bad: true},
		{name: "half a group", block: list("0033", "00"), bad: true},
		{name: "two shares of a group", block: list("0033", "001d0001aa"+"00170001bb"+"001d0001cc"),
			check: func(e *ClientExtensions13) bool {
				return e.DuplicateShare && !e.Duplicate && bytes.Equal(e.KeyShares.Key(0x1d), []byte{0xaa})
			}},
		{name: "shares of many groups", block: list("0033", manyShares(0)), check: func(e *ClientExtensions13) bool { return !e.DuplicateShare }},
		{name: "shares of many groups, the last twice", block: list("0033", manyShares(0)+manyShares(8190)),
			check: func(e *ClientExtensions13) bool { return e.DuplicateShare }},
		{name: "long key", block: list("0033", "11ec"+"04c0"+strings.Repeat("aa", 1216)),
			check: func(e *ClientExtensions13) bool { return len(e.KeyShares.Key(0x11ec)) == 1216 }},

		{name: "smallest pre_shared_key", block: psks(identity, binder), check: func(e *ClientExtensions13) bool {
			return e.PSKs.IdentityCount == 1 && e.PSKs.BinderCount == 1 && !e.PSKNotLast && e.PSKs.BindersAt == 13
		}},
		{name: "no identities", block: psks("", binder), bad: true},
		{name: "no binders", block: psks(identity, ""), bad: true},
		{name: "empty identity", block: psks("0000"+"00000000", binder), bad: true},
		{name: "identity without age", block: psks("0001"+"a1", binder), bad: true},
		{name: "binder of 31 bytes", block: psks(identity, "1f"+sampleBinder1[2:]), bad: true},
		{name: "binder of 255 bytes", block: psks(identity, "ff"+strings.Repeat("b1", 255)),
			check: func(e *ClientExtensions13) bool { return e.PSKs.BinderCount == 1 }},
		{name: "more identities than binders", block: psks(identity+identity, binder), check: func(e *ClientExtensions13) bool {
			return e.PSKs.IdentityCount == 2 && e.PSKs.BinderCount == 1 && countPSKs(e) == 1
		}},
		{name: "more binders than identities", block: psks(identity, binder+binder), check: func(e *ClientExtensions13) bool {
			return e.PSKs.IdentityCount == 1 && e.PSKs.BinderCount == 2 && countPSKs(e) == 1
		}},
		{name: "300 identities", block: psks(strings.Repeat(identity, 300), strings.Repeat(binder, 300)),
			check: func(e *ClientExtensions13) bool { return countPSKs(e) == 300 }},
		{name: "behind pre_shared_key an unknown extension", block: psks(identity, binder) + sampleUnknown,
			check: func(e *ClientExtensions13) bool { return e.PSKNotLast && e.PSKs.BindersAt == 13 }},
		{name: "behind pre_shared_key one of 1.2", block: psks(identity, binder) + sampleEMS,
			check: func(e *ClientExtensions13) bool { return e.PSKNotLast && !e.ExtendedMasterSecret }},

		{name: "no modes", block: "002d" + "0001" + "00", bad: true},
		{name: "unknown mode", block: "002d" + "0002" + "01" + "ff", check: func(e *ClientExtensions13) bool { return bytes.Equal(e.PSKModes, []byte{255}) }},
		{name: "empty cookie", block: list("002c", ""), bad: true},
		{name: "long cookie", block: list("002c", strings.Repeat("c0", 258)), check: func(e *ClientExtensions13) bool { return len(e.Cookie) == 258 }},
		{name: "early_data with content", block: "002a" + "0004" + "00000001", bad: true},
		{name: "no authorities", block: list("002f", ""), bad: true},
		{name: "empty name", block: list("002f", "0000"), bad: true},

		{name: "unknown extension twice", block: sampleUnknown + sampleUnknown, check: func(e *ClientExtensions13) bool { return e.Duplicate }},
		{name: "extension of 1.2 twice", block: sampleEMS + sampleEMS, check: func(e *ClientExtensions13) bool { return e.Duplicate }},
		{name: "the second is malformed", block: sampleCookie13 + "002c" + "0000",
			check: func(e *ClientExtensions13) bool { return e.Duplicate && len(e.Cookie) == 4 }},
		{name: "the second is not whole", block: sampleCookie13 + "002c" + "0001", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			block := unhex(t, test.block)
			e, ok := ParseClientExtensions13(block)
			wantExtensions13(t, block, e, ok)
			if ok == test.bad || ok && !test.check(&e) {
				t.Errorf("got %+v, %v", e, ok)
			}
		})
	}
}

// manyShares are shares of different groups, one for each number from the given one up to
// 8190.
func manyShares(from int) string {
	var b strings.Builder
	for i := from; i < 8191; i++ {
		fmt.Fprintf(&b, "%04x0001aa", 8*i)
	}
	return b.String()
}

func countPSKs(e *ClientExtensions13) (n int) {
	for range e.PSKs.All() {
		n++
	}
	return n
}

// wantExtensions13 reads the block in another way and compares.
func wantExtensions13(t *testing.T, block []byte, e ClientExtensions13, ok bool) {
	t.Helper()
	want, valid := naiveExtensions13(block)
	if ok != valid {
		t.Fatalf("ok = %v, want %v", ok, valid)
	}
	wantSameExtensions(t, e.ClientExtensions, want.ClientExtensions)
	got := e
	got.ClientExtensions, want.ClientExtensions = ClientExtensions{}, ClientExtensions{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for what, part := range map[string][]byte{
		"KeyShares": e.KeyShares, "Identities": e.PSKs.Identities, "Binders": e.PSKs.Binders, "PSKModes": e.PSKModes,
		"Cookie": e.Cookie, "CertificateAuthorities": e.CertificateAuthorities, "SupportedGroups": e.SupportedGroups,
	} {
		wantWithin(t, what, block, part)
	}
	var shares []byte
	for share := range e.KeyShares.All() {
		shares = appendVector16(AppendUint16s(shares, share.Group), share.Key)
	}
	wantBytes(t, "key shares encoded again", shares, e.KeyShares)
	var identities, binders []byte
	for _, p := range e.PSKs.All() {
		identities = binary.BigEndian.AppendUint32(appendVector16(identities, p.Identity), p.ObfuscatedAge)
		binders = append(append(binders, byte(len(p.Binder))), p.Binder...)
	}
	if e.PSKs.IdentityCount == e.PSKs.BinderCount {
		wantBytes(t, "identities encoded again", identities, e.PSKs.Identities)
		wantBytes(t, "binders encoded again", binders, e.PSKs.Binders)
	}
	if e.PSKs.Identities != nil {
		end := e.PSKs.BindersAt + 2 + len(e.PSKs.Binders)
		wantBytes(t, "binders in the block", block[e.PSKs.BindersAt+2:end], e.PSKs.Binders)
		if (end == len(block)) == e.PSKNotLast {
			t.Errorf("binders end at %d of %d, PSKNotLast = %v", end, len(block), e.PSKNotLast)
		}
	}
}

// naiveExtensions13 leaves the extensions that 1.2 has too to naiveExtensions, in a block
// of their own, and looks for the others.
func naiveExtensions13(block []byte) (e ClientExtensions13, ok bool) {
	found, ends := map[uint16][]byte{}, map[uint16]int{}
	var shared []byte
	for left := block; len(left) > 0; {
		if len(left) < 2 {
			return ClientExtensions13{}, false
		}
		id := uint16(left[0])<<8 | uint16(left[1])
		data, rest, ok := naiveVector(left[2:], 2)
		if !ok {
			return ClientExtensions13{}, false
		}
		if _, twice := found[id]; twice {
			e.Duplicate = true
		} else {
			found[id], ends[id] = data, len(block)-len(rest)
			if slices.Contains([]uint16{0, 5, 10, 13, 16, 18, 28, 43, 50, 54, 61}, id) {
				shared = append(shared, left[:len(left)-len(rest)]...)
			}
		}
		left = rest
	}
	valid := true
	check := func(ok bool) { valid = valid && ok }
	e.ClientExtensions, ok = naiveExtensions(shared)
	check(ok)
	if data, sent := found[51]; sent {
		list, rest, ok := naiveVector(data, 2)
		check(ok && len(rest) == 0)
		e.KeyShares = list
		groups := map[string]bool{}
		for valid && len(list) > 0 {
			check(len(list) > 2)
			if !valid {
				break
			}
			group := string(list[:2])
			e.DuplicateShare = e.DuplicateShare || groups[group]
			groups[group] = true
			var key []byte
			key, list, ok = naiveVector(list[2:], 2)
			check(ok && len(key) > 0)
		}
	}
	if data, sent := found[45]; sent {
		list, ok := naiveList(data, 1, 1)
		check(ok)
		e.PSKModes = list
	}
	if data, sent := found[44]; sent {
		list, ok := naiveList(data, 2, 1)
		check(ok)
		e.Cookie = list
	}
	if data, sent := found[42]; sent {
		check(len(data) == 0)
		e.EarlyData = true
	}
	if data, sent := found[47]; sent {
		list, ok := naiveList(data, 2, 1)
		check(ok && naiveNames16(list))
		e.CertificateAuthorities = list
	}
	if data, sent := found[41]; sent {
		e.PSKNotLast = ends[41] < len(block)
		var psks OfferedPSKs
		psks, ok = naivePSKs(data)
		check(ok)
		psks.BindersAt += ends[41] - len(data)
		e.PSKs = psks
	}
	if !valid {
		return ClientExtensions13{}, false
	}
	return e, true
}

func naiveNames16(list []byte) bool {
	for len(list) > 0 {
		var name []byte
		ok := false
		if name, list, ok = naiveVector(list, 2); !ok || len(name) == 0 {
			return false
		}
	}
	return true
}

// naivePSKs reads the content of pre_shared_key, of which BindersAt counts from its start.
func naivePSKs(data []byte) (o OfferedPSKs, ok bool) {
	identities, rest, ok := naiveVector(data, 2)
	if !ok || len(identities) == 0 {
		return OfferedPSKs{}, false
	}
	o.BindersAt = 2 + len(identities)
	binders, rest, ok := naiveVector(rest, 2)
	if !ok || len(rest) > 0 || len(binders) == 0 {
		return OfferedPSKs{}, false
	}
	o.Identities, o.Binders = identities, binders
	for len(identities) > 0 {
		identity, rest, ok := naiveVector(identities, 2)
		if !ok || len(identity) == 0 || len(rest) < 4 {
			return OfferedPSKs{}, false
		}
		identities = rest[4:]
		o.IdentityCount++
	}
	for len(binders) > 0 {
		binder, rest, ok := naiveVector(binders, 1)
		if !ok || len(binder) < 32 {
			return OfferedPSKs{}, false
		}
		binders = rest
		o.BinderCount++
	}
	return o, true
}

// FuzzClientExtensions13 compares with naive readings, those of 1.2 too.
func FuzzClientExtensions13(f *testing.F) {
	f.Add(unhex(f, allSamples13()))
	f.Add(unhex(f, allSamples()+allSamples13()))
	f.Add(unhex(f, samplePSKs+sampleUnknown))
	f.Add(unhex(f, sampleShares[:8]+"0020"+strings.Repeat("001d0001aa", 6)+"0000"))
	for _, x := range samples13() {
		f.Add(unhex(f, x.block))
	}
	for name := range recordingsIn(f, "testdata/hellos13") {
		body, _, _ := recordedHello13(f, name)
		if h, ok := ParseClientHello(body); ok {
			f.Add(h.Extensions)
		}
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		e, ok := ParseClientExtensions13(block)
		wantExtensions13(t, block, e, ok)
		old, ok := ParseClientExtensions(block)
		wantExtensions(t, block, old, ok)
	})
}

// TestClientExtensions13Allocations is not parallel: AllocsPerRun counts the whole process.
func TestClientExtensions13Allocations(t *testing.T) {
	var block []byte
	for _, x := range samples13() {
		if x.name != "server_name" { // a string
			block = append(block, unhex(t, x.block)...)
		}
	}
	if allocs := testing.AllocsPerRun(100, func() {
		e, ok := ParseClientExtensions13(block)
		n := 0
		for _, p := range e.PSKs.All() {
			n += len(p.Identity)
		}
		if !ok || n != 5 || len(e.KeyShares.Key(0x11ec)) != 2 {
			t.Errorf("got %+v, %v", e, ok)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
