// Tests of acknowledgments.

package wire

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestACK(t *testing.T) {
	t.Parallel()
	const first, second = "0000000000000002" + "0000000000000003", "0102030405060708" + "1112131415161718"
	tests := []struct {
		name, in string
		want     []RecordNumber
		bad      bool
	}{
		{name: "one", in: "0010" + first, want: []RecordNumber{{2, 3}}},
		{name: "two", in: "0020" + first + second, want: []RecordNumber{{2, 3}, {0x0102030405060708, 0x1112131415161718}}},
		{name: "not in order, and one twice", in: "0030" + second + first + second,
			want: []RecordNumber{{0x0102030405060708, 0x1112131415161718}, {2, 3}, {0x0102030405060708, 0x1112131415161718}}},
		{name: "highest", in: "0010" + strings.Repeat("ff", 16), want: []RecordNumber{{math.MaxUint64, math.MaxUint64}}},
		{name: "none", in: "0000"},
		{name: "most", in: "fff0" + strings.Repeat(first, 4095), want: slices.Repeat([]RecordNumber{{2, 3}}, 4095)},
		{name: "empty", in: "", bad: true},
		{name: "half a length", in: "00", bad: true},
		{name: "length one less", in: "000f" + first, bad: true},
		{name: "length one more", in: "0011" + first, bad: true},
		{name: "length one less, and a byte less", in: "000f" + first[2:], bad: true},
		{name: "length one more, and a byte more", in: "0011" + first + "00", bad: true},
		{name: "a byte behind", in: "0010" + first + "00", bad: true},
		{name: "a number behind", in: "0010" + first + second, bad: true},
		{name: "a number missing", in: "0020" + first, bad: true},
		{name: "half a number", in: "0018" + first + first[:16], bad: true},
		{name: "a byte behind none", in: "000000", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			content := unhex(t, test.in)
			ack, ok := ParseACK(content)
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			if got := slices.Collect(ack.All()); !slices.Equal(got, test.want) || ack.Len() != len(test.want) {
				t.Errorf("got %v, %d\nwant %v", got, ack.Len(), test.want)
			}
			if ok {
				wantBytes(t, "appended", AppendACK([]byte{0xee}, test.want), append([]byte{0xee}, content...))
			}
			for range ack.All() {
				break // not the whole list
			}
		})
	}
}

func TestACKTruncated(t *testing.T) {
	t.Parallel()
	content := AppendACK(nil, []RecordNumber{{2, 1}, {2, 2}, {3, 0}})
	for n := range content {
		if ack, ok := ParseACK(content[:n]); ok {
			t.Errorf("the first %d bytes are %v", n, ack)
		}
	}
}

// TestACKAllocations is not parallel: AllocsPerRun counts the whole process.
func TestACKAllocations(t *testing.T) {
	content := AppendACK(nil, []RecordNumber{{2, 1}, {2, 2}, {3, 0}})
	if allocs := testing.AllocsPerRun(100, func() {
		ack, ok := ParseACK(content)
		sum := uint64(0)
		for n := range ack.All() {
			sum += n.Epoch
		}
		if !ok || sum != 7 {
			t.Errorf("sum %d, ok = %v", sum, ok)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzACK(f *testing.F) {
	f.Add(AppendACK(nil, []RecordNumber{{0, 1}, {2, 1}, {3, MaxSequence}}))
	f.Add([]byte{0, 0})
	f.Add([]byte{0, 16})
	f.Fuzz(func(t *testing.T, content []byte) {
		ack, ok := ParseACK(content)
		list, rest, valid := naiveVector(content, 2)
		if ok != (valid && len(rest) == 0 && len(list)%16 == 0) {
			t.Fatalf("ok = %v", ok)
		}
		if !ok {
			return
		}
		wantWithin(t, "list", content, ack)
		numbers := slices.Collect(ack.All())
		if len(numbers) != len(list)/16 || ack.Len() != len(numbers) {
			t.Fatalf("%d numbers, Len says %d", len(numbers), ack.Len())
		}
		for i, n := range numbers {
			if want := fmt.Sprintf("%x", list[16*i:16*i+16]); fmt.Sprintf("%016x%016x", n.Epoch, n.Sequence) != want {
				t.Errorf("number %d is %+v, want %s", i, n, want)
			}
		}
		wantBytes(t, "written again", AppendACK(nil, numbers), content)
	})
}
